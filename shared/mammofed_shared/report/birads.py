"""The BI-RADS assessment category of an exam, 0 to 6, from a cell of a table or from the words of a report."""

import re
from collections.abc import Iterable

from mammofed_shared.exam import Report

_BY_SEVERITY = (1, 2, 3, 6, 0, 4, 5)
"""From the least to the most abnormal: our choice where the two breasts of an exam have several."""
_ROMAN = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5, "VI": 6}
_CELL = re.compile(r"(?:BI-?RADS\s*(?:CATEGORY)?\s*:?\s*)?([0-6])(?:[ABC]|\.0+)?", re.IGNORECASE)

_NOT_A_CATEGORY = r"(?!\d|\.\d|\s?(?:st|nd|rd|th)\b|\s*(?:edition|mm\b|cm\b|%|months?\b|/\d))"
"""``BI-RADS 5th edition``, ``category 2013``, ``4 mm``: numbers that are none."""
_SIDE = r"(?:right|left|both|bilateral|breasts?|[RL](?=\b|\d))"
_STATED = re.compile(
    r"\bBI[\s-]?RADS?(?:®|™|\s?\(R\))?(?:[\s:=#*(,–-]|final|overall|assessment|category|categories|cat\b\.?|code|score|"
    rf"classification|class|rating|mammograph(?:y|ic)|ACR|is\b|of\b|{_SIDE})*"
    rf"(?:(?<![\d.])([0-6])[ABC]?{_NOT_A_CATEGORY}(?![^\W\d_])|(?-i:\b(VI|IV|V|I{{1,3}})\b))"
    rf"|\b(?:final|overall|ACR)\s+(?:assessment\s*)?(?:category|code)?[\s:#(-]*([0-6])[ABC]?\b{_NOT_A_CATEGORY}"
    rf"|\bassessment(?:\s+(?:category|code))?\s*[:#]\s*(?:category\s*)?([0-6])[ABC]?\b{_NOT_A_CATEGORY}"
    r"|\bcategory\s*[:#]?\s*([0-6])[ABC]?\b(?=[\s:,;.()–-]*"
    r"(?:neg|benign|probabl|susp|highly|known|incompl|need|addit))",
    re.IGNORECASE,
)
_OTHER_SIDE = re.compile(
    rf"[\s,;/&]*(?:and\s+)?{_SIDE}(?:\s+breast)?[\s:=-]*([0-6])[ABC]?\b{_NOT_A_CATEGORY}", re.IGNORECASE
)
_OF_DENSITY = re.compile(
    r"\b(?:density|composition)[\s:=(,-]*(?:is|category|by|per|ACR|of|type|the|[\s:=(-])*$", re.IGNORECASE
)
_OF_THE_PAST = re.compile(
    r"\b(?:prior|previous|previously|formerly|earlier|history of|last year)\b[^.,;]{0,60}$", re.IGNORECASE
)
_LOOK_BACK = 80


def most_severe(categories: Iterable[int]) -> int | None:
    """The category of an exam whose breasts or findings have several; None without any."""
    return max(categories, key=_BY_SEVERITY.index, default=None)


def birads_of_cell(cell: str) -> int | None:
    """The category that a table's cell names (``2``, ``4A``, ``BI-RADS 0``), or None."""
    match = _CELL.fullmatch(cell.strip())
    return int(match[1]) if match else None


def birads_of(report: Report) -> int | None:
    """The category that a report states, in its impression or else in its findings; None where neither says it."""
    found = birads_in(report.impression)
    return birads_in(report.findings) if found is None else found


def birads_in(text: str) -> int | None:
    """The most severe category that a text states of this exam; those of earlier exams and of density do not count."""
    found: list[int] = []
    for match in _STATED.finditer(text):
        before = text[max(0, match.start() - _LOOK_BACK) : match.start()]
        if _OF_DENSITY.search(before) or _OF_THE_PAST.search(before):
            continue
        found.append(
            next(_ROMAN.get(part.upper(), -1) if not part.isdigit() else int(part) for part in match.groups() if part)
        )
        other = _OTHER_SIDE.match(text, match.end())
        if other:
            found.append(int(other[1]))
    return most_severe(found)
