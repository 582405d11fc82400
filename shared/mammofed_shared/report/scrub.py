"""Names, dates, numbers and addresses in a report, struck out and replaced by words that say what stood there.

Two ways: patterns (a title before a name, the forms of dates and numbers), and the words by which this patient and her
physicians are known from the DICOM header, which the caller recognises without knowing them. No pattern finds a name
that stands alone and is in no header: docs/reports.md says what remains.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mammofed_shared.pseudonyms import plain_word
from mammofed_shared.report import identifiers, person_names
from mammofed_shared.report.identifiers import UNIT, Span
from mammofed_shared.report.vocabulary import ORDINARY_WORDS

KINDS = ("date", "mail", "name", "number", "phone")
"""What is found; each is replaced by its word in brackets. Web addresses count as mail, ages over 89 as numbers."""

IsKnown = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """A text without identifiers, and the kinds of them that stood in it: sorted, each once."""

    text: str
    found: tuple[str, ...]


_WORD = re.compile(r"\[(?:date|mail|name|number|phone)\]|[^\W_]+")
_TRIGGERS = identifiers.TRIGGERS | person_names.TRIGGERS
_LEAST_LETTERS = 3
"""As in ``words_of``."""
_DECIMAL = re.compile(rf"[.,]\d|\s*{UNIT}", re.IGNORECASE)
_JOINED_BEFORE = re.compile(r"(?:[A-Z][^\W_]*['’-])+$")
_JOINED_BEHIND = re.compile(r"(?:['’-][A-Z][^\W_]*)+")
_REST_OF_NUMBER = re.compile(r"(?:[-_/]?[^\W_])*")
_START_OF_NUMBER = re.compile(r"[\w/-]*$")
_LONGEST_COMPOUND = 40
_BESIDE = re.compile(
    r"\[name\](?:(?:[\s,]+|['’-])(?:[A-Z]\.?[\s,]+){0,2}\[name\])+|\b[A-Z]\.\s*\[name\]|\[name\],?\s[A-Z]\.(?=\s[a-z]|[,;)]|$)"
    r"|\[name\]\s(?!(?:In|On|At|Is|It|No|To|Of|By|As|An|We|He|My|Or|If|So|Do|Up|Dr|Mr|Ms|Pt|Re)\b)[A-Z][a-z]\b(?!\.)"
)
"""Names side by side, and initials and names of two letters beside them."""


def scrub(text: str, is_known: IsKnown) -> Scrubbed:
    """Strike identifiers out; a second time it finds nothing.

    Args:
        text: a section of a report.
        is_known: whether a word, as ``words_of`` gives it, is one by which this patient, her physicians or her
            identifiers are known. Called for words that are not ordinary ones in lower case.
    """
    words = set(_WORD.findall(text))
    known = {word for word in words if _is_candidate(word) and is_known(_plain(word))}
    triggers = {word for word in words if word.lower() in _TRIGGERS}
    found: set[str] = set()
    while True:
        spans = _without_overlaps(_spans(text, known, triggers))
        struck = _struck(text, spans)
        # A name may come to stand beside a title by what was struck. Every round takes letters away, so it ends.
        if struck == text:
            return Scrubbed(text, tuple(sorted(found)))
        found |= {kind for _, _, kind in spans}
        text = struck


def _spans(text: str, known: set[str], triggers: set[str]) -> Iterator[Span]:
    if known or triggers:
        is_shouted = text.upper() == text
        for word in sorted(triggers | known):
            for start in _places(text, word):
                if word in triggers:
                    yield from _announced(text, word, start, is_shouted)
                if word in known:
                    yield from _known_span(text, word, start)
    # Last: of two kinds for the same stretch, the one that a word announces is right.
    yield from identifiers.spans_by_form(text)


def _places(text: str, word: str) -> Iterator[int]:
    """Where a word stands, whole; a search for each of a few words is faster than a walk over all of them."""
    start = text.find(word)
    while start >= 0:
        end = start + len(word)
        before, behind = text[start - 1 : start], text[end : end + 1]
        is_ours = before == "[" and behind == "]" and word in KINDS
        if not (before.isalnum() or behind.isalnum() or is_ours):
            yield start
        start = text.find(word, end)


def _announced(text: str, word: str, start: int, is_shouted: bool) -> Iterator[Span]:
    plain = word.lower()
    if plain in identifiers.TRIGGERS:
        yield from identifiers.spans_at_word(text, plain, start)
    if plain in person_names.TRIGGERS:
        yield from person_names.spans_at_word(text, word, start, is_shouted=is_shouted)


def _is_candidate(word: str) -> bool:
    # An ordinary word in lower case means what it says, though a patient may be called by it.
    return len(word) >= _LEAST_LETTERS and word not in ORDINARY_WORDS and word[0] != "["


def _plain(word: str) -> str:
    return word.lower() if word.isascii() else plain_word(word)


def _known_span(text: str, word: str, start: int) -> Iterator[Span]:
    """The stretch to strike: a number with all that is joined to it, a name with its other part (O'Brien)."""
    end = start + len(word)
    earliest = max(0, start - _LONGEST_COMPOUND)
    if any(map(str.isdigit, word)):
        if not (word.isdigit() and (_DECIMAL.match(text, end) or re.search(r"\d[.,]$", text[earliest:start]))):
            before, rest = _START_OF_NUMBER.search(text, earliest, start), _REST_OF_NUMBER.match(text, end)
            assert before is not None and rest is not None
            yield before.start(), rest.end(), "number"
        return
    before, rest = _JOINED_BEFORE.search(text, earliest, start), _JOINED_BEHIND.match(text, end)
    yield before.start() if before else start, rest.end() if rest else end, "name"


def _without_overlaps(spans: Iterator[Span]) -> list[Span]:
    """In the order of the text; of two that overlap the first, and what the second reaches beyond it."""
    kept: list[Span] = []
    for start, end, kind in sorted(spans, key=lambda span: (span[0], -span[1])):
        if kept and start < kept[-1][1]:
            kept[-1] = (kept[-1][0], max(end, kept[-1][1]), kept[-1][2])
        else:
            kept.append((start, end, kind))
    return kept


def _struck(text: str, spans: list[Span]) -> str:
    if not spans:
        return text
    parts: list[str] = []
    done = 0
    for start, end, kind in spans:
        parts += (text[done:start], f"[{kind}]")
        done = end
    text = "".join((*parts, text[done:]))
    return _BESIDE.sub("[name]", text) if "[name]" in text else text
