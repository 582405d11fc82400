"""Names of persons in a report, found by the titles, roles and verbs beside them."""

import re
from collections.abc import Iterator

from mammofed_shared.report.identifiers import Span
from mammofed_shared.report.vocabulary import ORDINARY_WORDS

_SHORT_TITLES = frozenset(("dr", "drs", "mr", "mrs", "ms", "prof"))
_TITLES = _SHORT_TITLES | {"profs", "mx", "messrs", "doctor", "professor", "miss", "sister", "nurse"}
_PERSONS = frozenset(("patient", "pt", "lady", "woman", "daughter", "mother", "sister"))
_ROLES = frozenset(
    (
        *("physician", "physicians", "provider", "providers", "doctor", "clinician", "clinicians", "radiologist"),
        *("radiologists", "surgeon", "oncologist", "technologist", "technologists", "radiographer", "practitioner"),
        *(
            "consultant",
            "gp",
            "pcp",
            "md",
            "patient",
            "patients",
            "pt",
            "name",
            "names",
            "surname",
            "resident",
            "fellow",
        ),
        *("attending", "tech", "transcriptionist", "transcriber", "reader", "reporter", "operator", "nurse", "to"),
        *("referring", "ordering", "requesting", "interpreting", "performing", "supervising", "requested", "referred"),
        *("attn", "attention", "dictated", "transcribed", "typed", "signed", "reviewed", "read", "approved", "by"),
    )
)
"""Words before a colon behind which a name stands."""
_PREPOSITIONS = frozenset(("by", "with", "to"))
_CREDENTIALS = frozenset(
    (
        *("MD", "M", "DO", "D", "MBBS", "MBChB", "FRCR", "F", "FACR", "PhD", "Ph", "R", "RT", "RN", "NP", "PA", "ARNP"),
        *("CRNP", "MRCP", "FRCS", "FRCP", "CNM"),
    )
)
"""First words of ``_CREDENTIAL``."""
TRIGGERS = _TITLES | _ROLES | _PERSONS | _PREPOSITIONS | {"dear"} | {word.lower() for word in _CREDENTIALS}
"""Words beside which ``spans_at_word`` looks."""

_BEHIND_TITLE = re.compile(r"(?:\.\s*|\s+)(?=[^\W\d_])")
_BEHIND_ROLE = re.compile(r"(?:['’]s)?(?:\s*[:=]\s*|\s[-–]\s)(?=[^\W\d_])")
_BEHIND_PERSON = re.compile(r",?\s+(?:(?:named|called|is)\s+)?(?=[A-Z])")
_VERB = re.compile(
    r"\b(?:read|interpreted|reviewed|dictated|signed|reported|approved|verified|authenticated|performed|transcribed|typed|"
    r"finali[sz]ed|requested|ordered|referred|seen|examined|discussed|communicated|conveyed|relayed|spoken|spoke|called|"
    r"telephoned|phoned|informed|notified|given|faxed|sent|biopsied)\s+(?:\w+\s+){0,3}$",
    re.IGNORECASE,
)
_LONGEST_VERB = 60
_CREDENTIAL = re.compile(
    r"(?:M\.?D\b\.?|D\.O\b\.?|MBBS\b|MBChB\b|F\.?R\.?C\.?R\b|FACR\b|Ph\.?D\b|R\.T\.|RT\(R\)|PA-C\b|NP-C\b|ARNP\b|CRNP\b)"
    r"|(?<=, )(?:DO|RN|NP|RT|PA|MRCP|FRCS|FRCP|CNM)\b"
)
_BEFORE_CREDENTIAL = re.compile(r"((?:(?:[A-Z][\w'’-]*\.?|de|van|von|der|la)[ ,]+){0,3}[A-Z][\w'’-]*\.?),?\s+$")
_LONGEST_NAME = 60
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_PARTICLES = frozenset(
    ("de", "del", "della", "di", "da", "van", "von", "der", "den", "la", "le", "al", "el", "bin", "ibn", "st")
)
_NO_NAMES = frozenset(
    (
        *(
            "a",
            "and",
            "are",
            "as",
            "at",
            "be",
            "by",
            "for",
            "from",
            "had",
            "has",
            "have",
            "he",
            "her",
            "in",
            "is",
            "it",
            "of",
        ),
        *("on", "or", "she", "that", "the", "this", "to", "was", "were", "who", "will", "with", "would", "patient"),
    )
)
_GAP = re.compile(r"[ \t]*\n?[ \t]*[,^]?[ \t]*(?=[^\W\d_])")
_ANOTHER = re.compile(r"\s*(?:,|and|&|/)\s*(?=[A-Z])")
_CAPITALISED = re.compile(r",?\s+([A-Z][^\W\d_]+)")
_MOST_WORDS = 4


def spans_at_word(text: str, word: str, start: int, *, is_shouted: bool) -> Iterator[Span]:
    """Names that one of ``TRIGGERS`` announces.

    Args:
        word: as it stands in the text, at ``start``.
        is_shouted: the text is in capitals, so that they do not mark a name.
    """
    plain, end = word.lower(), start + len(word)
    if plain in _TITLES:
        yield from _behind_title(text, word, end, is_shouted)
    if plain in _ROLES and (match := _BEHIND_ROLE.match(text, end)):
        yield from _name(text, match.end(), is_shouted)
    if plain == "dear" and (match := _BEHIND_TITLE.match(text, end)):
        yield from _name(text, match.end(), is_shouted)
    if plain in _PERSONS and (match := _BEHIND_PERSON.match(text, end)):
        yield from _name(text, match.end(), is_shouted)
    is_led_to = plain in _PREPOSITIONS and text[end + 1 : end + 2].isupper()
    if is_led_to and _VERB.search(text, max(0, start - _LONGEST_VERB), start):
        yield from _name(text, end + 1, is_shouted)
    if word in _CREDENTIALS and _CREDENTIAL.match(text, start):
        yield from _before_credential(text, start)


def _behind_title(text: str, word: str, end: int, is_shouted: bool) -> Iterator[Span]:
    match = _BEHIND_TITLE.match(text, end)
    if match is None:
        return
    plain, has_point = word.lower(), text[end : end + 1] == "."
    # MS is also a disease, "miss" a verb, and a nurse or doctor mostly nameless.
    if (word == "MS" and not has_point) or (plain not in _SHORT_TITLES and word[0].islower()):
        return
    at: int | None = match.end()
    is_sure = plain in _SHORT_TITLES
    while at is not None:
        name_end = _end_of_name(text, at, is_shouted, is_sure)
        if name_end is None and is_sure and (has_point or plain in ("mr", "mrs")):
            # Dictated without capitals: mrs. white.
            word_behind = _WORD.match(text, at)
            if word_behind and word_behind[0].lower() not in _NO_NAMES:
                name_end = word_behind.end()
        if name_end is None:
            return
        yield at, name_end, "name"
        another = _ANOTHER.match(text, name_end) if plain in ("drs", "messrs") else None
        at, is_sure = (another.end(), False) if another else (None, False)


def _name(text: str, at: int, is_shouted: bool) -> Iterator[Span]:
    end = _end_of_name(text, at, is_shouted, is_sure=False)
    if end is not None:
        yield at, end, "name"


def _end_of_name(text: str, at: int, is_shouted: bool, is_sure: bool) -> int | None:
    """Where the name that begins here ends; None where none does. ``is_sure``: what stands here can be nothing else."""
    end: int | None = None
    is_named = False
    for count in range(_MOST_WORDS):
        word = _WORD.match(text, at)
        if word is None:
            break
        plain = word[0].lower()
        is_capital = word[0][0].isupper()
        is_initial = is_capital and len(word[0]) == 1
        is_ordinary = plain in ORDINARY_WORDS
        at = word.end()
        if is_initial:
            at += text[at : at + 1] == "."
        elif plain in _PARTICLES and not is_ordinary:
            pass
        elif is_sure and count == 0 and (is_capital or not is_ordinary):
            is_named, end = True, at
        elif not is_capital or (
            is_ordinary and (is_shouted or not is_named) and not (count == 0 and _leads_on(text, at))
        ):
            break
        else:
            is_named, end = is_named or not is_ordinary, at
        gap = _GAP.match(text, at)
        if gap is None or (not gap[0] and not is_initial):
            break
        at = gap.end()
    return end if is_named else None


def _leads_on(text: str, at: int) -> bool:
    """Whether an ordinary word is followed by a capitalised one that is not: ``Small, Anna``."""
    word = _CAPITALISED.match(text, at)
    return word is not None and word[1].lower() not in ORDINARY_WORDS


def _before_credential(text: str, start: int) -> Iterator[Span]:
    """The name before ``MD`` and its like; ordinary words at its beginning stay."""
    match = _BEFORE_CREDENTIAL.search(text, max(0, start - _LONGEST_NAME), start)
    words = list(_WORD.finditer(text, match.start(1), match.end(1))) if match else []
    while len(words) > 1 and words[0][0].lower() in ORDINARY_WORDS:
        words.pop(0)
    if match and words and words[-1][0].lower() not in ORDINARY_WORDS:
        yield words[0].start(), match.end(1), "name"
