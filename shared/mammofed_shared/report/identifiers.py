"""Dates, numbers, telephone numbers and addresses in a report, found by their form.

What looks alike and is none stays: measurements, clock positions, BI-RADS categories, ages up to 89, years alone.
Every pattern here is tried only where a digit or a trigger word stands: scanning a text with each of them costs ten
times as much.
"""

import re
from collections.abc import Iterator

Span = tuple[int, int, str]
"""Where something begins and ends, and its kind."""

_MONTHS = (
    *("jan", "january", "feb", "february", "mar", "march", "apr", "april", "may", "jun", "june", "jul", "july"),
    *("aug", "august", "sep", "sept", "september", "oct", "october", "nov", "november", "dec", "december"),
)
_LABELS = (
    *(
        "mrn",
        "mr",
        "medical",
        "accession",
        "acc",
        "ssn",
        "social",
        "nhs",
        "chi",
        "uhid",
        "id",
        "patient",
        "pt",
        "hospital",
    ),
    *(
        "exam",
        "study",
        "order",
        "case",
        "chart",
        "account",
        "acct",
        "visit",
        "encounter",
        "specimen",
        "job",
        "document",
    ),
    *("requisition", "policy", "insurance", "unit", "registration", "reference", "ref"),
)
_CALLS = ("phone", "telephone", "tel", "fax", "pager", "beeper", "cell", "mobile", "extension", "ext")
TRIGGERS = frozenset((*_MONTHS, *_LABELS, *_CALLS, "ninety", "hundred"))
"""Words beside which ``spans_at_word`` looks."""

_YEAR = r"(?:19|20)\d\d"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
UNIT = (
    r"(?:mm|cm|millimet|centimet|%|percent|o['’]?\s?clock|views?|images?|mass|lesion|calc|months?|weeks?|years?|days?)"
)
_NOT_A_SIZE = rf"(?!\s*(?:{UNIT}|[x×]\s*\d))"
_END = r"(?![\w/]|[.,-]\d)"
_TIME = re.compile(
    r",?\s*(?:at\s+|@\s*)?\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?(?:\s*(?:[ap]m\b|[ap]\.m\.|h(?:rs?|ours)\b))?"
    r"(?:\s*(?:E[SD]T|C[SD]T|P[SD]T|GMT|UTC|Z)\b)?",
    re.IGNORECASE,
)
_BEHIND_MONTH = re.compile(
    rf"\.?(?:[\s-]*{_DAY}(?:st|nd|rd|th)?\b(?:[\s,-]+(?:of\s+)?{_YEAR}\b|,?\s*['’]\d\d\b|[/-]\d\d\b)?{_NOT_A_SIZE}"
    rf"|[\s,/-]+(?:of\s+)?(?:{_YEAR}\b|['’]\d\d\b))",
    re.IGNORECASE,
)
_YEAR_BEHIND_MONTH = re.compile(rf"\.?[\s,-]*(?:of\s+)?(?:{_YEAR}|['’]\d\d|\d\d(?=\W|$)){_NOT_A_SIZE}(?![\w:])")
_BEFORE_MONTH = re.compile(rf"(?<![\w./:-]){_DAY}(?:st|nd|rd|th)?[\s-]*(?:day\s+)?(?:of\s+)?$", re.IGNORECASE)
_LONGEST_BEFORE = 16
_JOINED = re.compile(
    rf"{_DAY}[-]?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*-?(?:{_YEAR}|\d\d)\b", re.IGNORECASE
)
_IN_DIGITS = re.compile(
    rf"(?:{_YEAR}([-/.])(?:0?[1-9]|1[0-2])\1{_DAY}(?:T\d\d:?\d\d(?::?\d\d)?(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?)?"
    rf"|\d{{1,2}}([/.-])\d{{1,2}}\2(?:{_YEAR}|(?<=/)\d\d)"
    rf"|(?:{_DAY}([.-])(?:0?[1-9]|1[0-2])|(?:0?[1-9]|1[0-2])([.-]){_DAY})(?:\3|\4)\d\d"
    rf"|(?:0?[1-9]|1[0-2])[/.-]{_YEAR}|{_YEAR}[/-](?:0[1-9]|1[0-2])"
    rf"|{_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{{6}})?){_NOT_A_SIZE}{_END}"
    r"|(?:1[0-2]|0?[1-9]):[0-5]\d(?::\d\d)?\s*(?:[ap]m\b|[ap]\.m\.)|(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?![\w:])",
    re.IGNORECASE,
)
_ON_DAY = re.compile(rf"(?:0?[1-9]|1[0-2])/{_DAY}{_END}(?!\s+of\b)")
_ON = re.compile(r"\b(?:on|from|dated|since)\s+$", re.IGNORECASE)
_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)*|\b(?:https?|ftp)://\S+|\bwww\.\S+", re.IGNORECASE)
_PHONE = re.compile(
    r"(?:\+\d{1,3}[\s.-]?)?(?:\(\d{2,5}\)\s?|\d{3,5}[\s.-])\d{3,4}[\s.-]\d{4}(?:\s*(?:x|ext\.?)\s*\d{1,6})?(?![\w]|\.\d)"
    r"|\+\d{1,3}(?:[\s.-]?\(?\d{1,5}\)?){2,5}(?!\w)|\d{3}-\d{4}(?![\w-])|0\d{2,4}\s\d{3,4}\s?\d{3,4}(?!\w)",
    re.IGNORECASE,
)
_CALL = re.compile(rf"\w+\b(?:\s*(?:number|no\b|at|is|#))*[.:\s#]*(\+?\(?\d[\d ()./-]+\d){_NOT_A_SIZE}", re.IGNORECASE)
_LABELLED = re.compile(
    r"(?:(?:MRN|medical\s+record|accession|SSN|social\s+security|NHS|CHI|UHID)(?:\s*(?:number|no\b\.?|num\b\.?|ID|\#))?"
    r"|acc(?:\.\s*)?\s*(?:\#|no\b\.?|number)|MR\s*\#|ID(?=\s*[:#])|\w+\s*(?:ID|number|n[or]\.|n[or](?=\s*[:#])|\#))"
    r"\s*(?:is|was)?\s*[:\#=]?\s*(\d{3}[ -]\d{2,3}[ -]\d{4}\b|[A-Z]{1,4} \d[\w-]*|(?=[\w./-]*\d)[A-Z0-9][\w./-]*\w|\d)",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    r"\d{3}-\d{2}-\d{4}(?![\w-])"  # social security number
    r"|\d+(?:\.\d+){4,}(?!\w)"  # DICOM UID
    r"|\d{6,}\w*(?![.,]\d)|\d{2,6}-\d{4,}(?![\w-])"
)
_PREFIX = re.compile(r"(?<![\w.,])[A-Za-z]{1,5}[-_]?$")
_SPECIMEN = re.compile(r"\d\d-\d{3,}\b")
"""Behind one to three letters, a pathologist's number: S19-12345."""
_OLD = re.compile(
    r"(?:9\d|1[0-3]\d)"
    r"(?=\s*-?\s*(?:years?|yrs?|y)\.?\s*-?\s*(?:old|of age|o\b)|\s*y\.?/?o\b|\s+(?:female|woman|lady)\b)",
    re.IGNORECASE,
)
_AT_AGE = re.compile(rf"(?:9\d|1[0-3]\d)\b{_NOT_A_SIZE}")
_AGE = re.compile(r"\bage(?:d|:)?\s*(?:is\s|of\s)?$", re.IGNORECASE)
_OLD_IN_WORDS = re.compile(r"(?:ninety|hundred)(?:[\s-]+\w+){0,2}?(?=[\s-]years?[\s-](?:old|of age))", re.IGNORECASE)
_DIGITS = re.compile(r"[\d][\d./:-]*")


def spans_by_form(text: str) -> Iterator[Span]:
    """Mail and web addresses, dates, telephone and other numbers that no word announces, and ages over 89."""
    if "@" in text or "://" in text or "www." in text.lower():
        yield from ((match.start(), match.end(), "mail") for match in _MAIL.finditer(text))
    done = 0
    for match in _DIGITS.finditer(text):
        start, end = match.span()
        # A digit that stands alone is the most frequent number of all.
        if start < done or (end - start == 1 and text[end : end + 1].isspace() and text[start - 1 : start] != "+"):
            continue
        span = _number_at(text, start, match[0])
        if span:
            done = span[1]
            yield span


def spans_at_word(text: str, word: str, start: int) -> Iterator[Span]:
    """What one of ``TRIGGERS`` announces; ``word`` in lower case."""
    if word in _MONTHS:
        yield from _date_at_month(text, word, start)
    elif word in _CALLS:
        match = _CALL.match(text, start)
        if match:
            yield match.start(1), match.end(1), "phone"
    elif word in _LABELS:
        match = _LABELLED.match(text, start)
        if match:
            yield match.start(1), match.end(1), "number"
    else:
        match = _OLD_IN_WORDS.match(text, start)
        if match:
            yield match.start(), match.end(), "number"


def _number_at(text: str, start: int, digits: str) -> Span | None:
    """What a run of digits and separators is, or begins."""
    before = text[start - 1 : start]
    is_continued = before in (".", ",", "/", "-") and text[start - 2 : start - 1].isdigit()
    is_joined = is_continued or before.isalnum() or before == "_"
    span = None if is_continued else _date(text, start)
    if span is None and not is_joined:
        span = _telephone(text, start) or _age(text, start)
    if span:
        return span
    prefix = _PREFIX.search(text, max(0, start - 7), start)
    if prefix and _SPECIMEN.match(text, start):
        return prefix.start(), _end(_SPECIMEN, text, start), "number"
    if len(digits) < 6 or (is_joined and not prefix):
        return None
    number = _NUMBER.match(text, start)
    return (prefix.start() if prefix else start, number.end(), "number") if number else None


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    match = pattern.match(text, start)
    assert match is not None
    return match.end()


def _date(text: str, start: int) -> Span | None:
    match = _IN_DIGITS.match(text, start) or _JOINED.match(text, start)
    if match is None and _ON.search(text, max(0, start - 8), start):
        match = _ON_DAY.match(text, start)
    return (start, _with_time(text, match.end()), "date") if match else None


def _with_time(text: str, end: int) -> int:
    match = _TIME.match(text, end)
    return match.end() if match else end


def _telephone(text: str, start: int) -> Span | None:
    # What belongs before the digits: (555) 123-4567, +1 555 123 4567.
    while start and text[start - 1] in "+(":
        start -= 1
    match = _PHONE.match(text, start)
    return (start, match.end(), "phone") if match else None


def _age(text: str, start: int) -> Span | None:
    if text[start] not in "91":
        return None
    match = _OLD.match(text, start) or (_AGE.search(text, max(0, start - 8), start) and _AT_AGE.match(text, start))
    return (start, match.end(), "number") if match else None


def _date_at_month(text: str, word: str, start: int) -> Iterator[Span]:
    end = start + len(word)
    # "may" is a verb unless a year follows; "2 masses. May represent" is no day.
    is_verb = word == "may" and text[start] == "m"
    day = None if is_verb else _BEFORE_MONTH.search(text, max(0, start - _LONGEST_BEFORE), start)
    year = _YEAR_BEHIND_MONTH.match(text, end)
    if day and (year or word != "may" or not day[0][-1:].isspace() or not day[0].strip().isdigit()):
        yield day.start(), _with_time(text, year.end() if year else end), "date"
        return
    match = _BEHIND_MONTH.match(text, end)
    if match and (not is_verb or re.search(_YEAR, match[0])):
        yield start, _with_time(text, match.end()), "date"
