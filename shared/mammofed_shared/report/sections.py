"""Findings and impression of a free-text report, by the headings that hospitals use.

What stands under other headings (history, technique, comparison), a signature, and sentences that stand in every report
alike are dropped: they say nothing of the images, and it is there that names stand.
"""

import re
from dataclasses import dataclass

from mammofed_shared.exam import Report
from mammofed_shared.report.boilerplate import without_boilerplate as without_boilerplate
from mammofed_shared.report.boilerplate import without_stamps

_FINDINGS = (
    "FINDINGS|FINDING|MAMMOGRAPHIC FINDINGS|MAMMOGRAM FINDINGS|MAMMOGRAPHY FINDINGS|IMAGING FINDINGS|BREAST FINDINGS|"
    "RADIOLOGICAL FINDINGS|DESCRIPTION|REPORT|MAMMOGRAPHY REPORT|MAMMOGRAM REPORT|BODY OF REPORT|NARRATIVE|"
    "FINDINGS AND IMPRESSION|FINDINGS AND IMPRESSIONS|FINDINGS/IMPRESSION|FINDINGS & IMPRESSION|"
    "FINDINGS AND CONCLUSION|OBSERVATIONS"
)
_IMPRESSION = (
    "IMPRESSION|IMPRESSIONS|CONCLUSION|CONCLUSIONS|ASSESSMENT|FINAL ASSESSMENT|OVERALL ASSESSMENT|ASSESSMENT CATEGORY|"
    "FINAL ASSESSMENT CATEGORY|INTERPRETATION|OPINION|SUMMARY|COMMENT|COMMENTS|RECOMMENDATION|RECOMMENDATIONS|ADVICE|"
    "IMPRESSION AND RECOMMENDATION|IMPRESSION AND RECOMMENDATIONS|IMPRESSION/RECOMMENDATION|IMPRESSION/RECOMMENDATIONS|"
    "ASSESSMENT AND RECOMMENDATION|ASSESSMENT AND RECOMMENDATIONS|ASSESSMENT/RECOMMENDATION|MANAGEMENT|FOLLOW-UP|"
    "FOLLOW UP|BI-RADS|BIRADS|BI-RADS CATEGORY|BIRADS CATEGORY|BI-RADS ASSESSMENT|BI-RADS CODE|BI-RADS SCORE|"
    "ACR CATEGORY|ADDENDUM"
)
_DROPPED = (
    "HISTORY|CLINICAL HISTORY|CLINICAL INDICATION|CLINICAL INFORMATION|CLINICAL DETAILS|CLINICAL DATA|"
    "CLINICAL STATEMENT|CLINICAL QUESTION|CLINICAL BACKGROUND|RELEVANT HISTORY|PATIENT HISTORY|FAMILY HISTORY|"
    "PERSONAL HISTORY|INDICATION|INDICATIONS|REASON FOR EXAM|REASON FOR EXAMINATION|REASON FOR STUDY|"
    "REASON FOR REFERRAL|"
    "TECHNIQUE|TECHNICAL FACTORS|PROTOCOL|VIEWS|COMPARISON|COMPARISONS|COMPARISON STUDIES|PRIOR STUDIES|PRIORS|"
    "PREVIOUS IMAGING|EXAM|EXAMINATION|EXAM TYPE|EXAMINATION TYPE|PROCEDURE|STUDY|STUDY TYPE|RISK ASSESSMENT|"
    "RISK FACTORS|MEDICATIONS|RADIATION DOSE|DOSE|CAD|COMPUTER-AIDED DETECTION|NOTIFICATION|COMMUNICATION|DISCLAIMER|"
    "ATTESTATION"
)
_OF_A_PERSON = (
    "PATIENT|PATIENT NAME|NAME|PATIENT ID|MRN|MEDICAL RECORD NUMBER|DOB|DATE OF BIRTH|AGE|SEX|DATE|DATE OF EXAM|"
    "DATE OF SERVICE|EXAM DATE|STUDY DATE|ACCESSION|ACCESSION NUMBER|NHS NUMBER|HOSPITAL NUMBER|REFERRING PHYSICIAN|"
    "REFERRING CLINICIAN|REFERRER|ORDERING PHYSICIAN|ORDERING PROVIDER|REQUESTING PHYSICIAN|RADIOLOGIST|TECHNOLOGIST|"
    "RADIOGRAPHER|ATTENDING|RESIDENT|READER|REPORTER|COPY TO|FACILITY|ADDRESS|PHONE|TELEPHONE"
)
_PARTS = (
    "RIGHT BREAST|LEFT BREAST|RIGHT|LEFT|BREAST COMPOSITION|BREAST DENSITY|TISSUE DENSITY|TISSUE COMPOSITION|"
    "BREAST PARENCHYMA|PARENCHYMA|PARENCHYMAL PATTERN|DENSITY|MAMMOGRAM|MAMMOGRAPHY|BILATERAL MAMMOGRAM"
)
"""Headings inside the findings, before a colon: they stay text, and end a part that is dropped."""
_SECTION = {
    word: section
    for words, section in (
        (_FINDINGS, "findings"),
        (_IMPRESSION, "impression"),
        (_DROPPED, "dropped"),
        (_OF_A_PERSON, "dropped"),
        (_PARTS, "part"),
    )
    for word in words.split("|")
}
_BIRADS = re.compile(r"BI-?RADS|ACR CATEGORY")

_LINE = re.compile(r"(?:\A|\n)[ \t]*")
_AT_LINE = re.compile(
    # Perhaps marked up or numbered, before a colon, a dash or the end of the line.
    r"(?:\#{1,6}[ \t]*|[*_=\[]{1,4}[ \t]*)?(?:\(?(?:\d{1,2}|[IVX]{1,4})[.)][ \t]*)?[*_=]{0,3}"
    r"([A-Za-z](?:[A-Za-z&/ \t]|-(?=[A-Za-z])){1,34}+)[*_=\]]{0,4}[ \t]*(?:\#?(\d{1,2})[A-C]?[ \t]*(?=:))?"
    r"(?::[*_]{0,3}|-(?=\s)|[*_=\]]*[ \t]*$)",
    re.MULTILINE,
)
_FROM_COLON = re.compile(r"[ \t]*([A-C]?\d{1,2}\#?[ \t]*)?([A-Za-z&/ \t-]{2,35})")
"""What stands before a colon, read backwards: searched forwards, it would be tried from every letter."""
_LONGEST_HEADING = 40
_SIGNED_WORDS = (
    r"(?:this report (?:was|has been) )?(?:(?:electronically|digitally) (?:signed|authenticated|verified|approved)|"
    r"signed electronically|(?:signed|dictated|transcribed|authenticated|finali[sz]ed) by|(?:final )?report signed)\b"
)
_SIGNED = re.compile(_SIGNED_WORDS, re.IGNORECASE)
_SIGNED_IN_LINE = re.compile(rf"[.:;][ \t]+(?={_SIGNED_WORDS})", re.IGNORECASE)
_SIGNED_LINE = re.compile(
    # Weaker words: a wrapped line may begin with them, so a colon or a name must follow, at the start of a line.
    r"(?:approved|verified|reported|read|interpreted|reviewed) by(?=[ \t]*:|[ \t]+(?!CAD\b|computer)(?-i:[A-Z]))|"
    r"(?:interpreting|reading) (?:physician|radiologist)\b|attending radiologist\b|i have personally reviewed\b|"
    r"(?:signature|signed)[ \t]*:|yours sincerely\b|kind regards\b|with best regards\b",
    re.IGNORECASE,
)
_LINE_OF_A_PERSON = re.compile(
    rf"^[ \t]*(?:{'|'.join(map(re.escape, _OF_A_PERSON.split('|')))})[ \t]*:[^\n]{{0,100}}\n",
    re.IGNORECASE | re.MULTILINE,
)
_BREAK = re.compile(r"<br ?/?>", re.IGNORECASE)
_LEAST_WORDS = 5
"""A shorter line before the first heading is a title."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """A heading, or a signature, which begins a dropped part: up to the next heading, for an addendum may follow."""

    start: int
    end: int
    name: str
    section: str


def split_report(text: str) -> Report:
    """Divide a report into its two sections; without any heading the whole of it is findings.

    Several parts of one section are joined in order. A BI-RADS or recommendation part belongs to the impression, and so
    does an addendum. Where no heading begins the findings, the sentences before the first heading are taken for them.
    """
    text = "\n".join(without_stamps(_BREAK.sub("\n", text).splitlines()))
    marks = _marks(text)
    sections = {mark.section for mark in marks}
    if not {"findings", "impression"} & sections:
        # A heading that only drops things is no sign that the rest is divided.
        end = min((mark.start for mark in marks if not mark.name), default=len(text))
        return Report(findings=without_boilerplate(_LINE_OF_A_PERSON.sub("", text[:end])), impression="")
    parts: dict[str, list[str]] = {"findings": [], "impression": [], "dropped": []}
    before = text[: marks[0].start]
    if "findings" not in sections and "." in before and len(before.split()) >= _LEAST_WORDS:
        parts["findings"].append(before)
    section = "dropped"
    for mark, end in zip(marks, [mark.start for mark in marks[1:]] + [len(text)], strict=True):
        if mark.section != "part":
            section = mark.section
        elif section == "dropped":
            section = "findings"
        parts[section].append(_body(mark, text[mark.end : end]))
    return Report(*(without_boilerplate("\n".join(filter(None, parts[name]))) for name in ("findings", "impression")))


def _marks(text: str) -> list[_Mark]:
    """Headings and signatures in the order of the text."""
    marks: dict[int, _Mark] = {}
    for start in _LINE.finditer(text):
        at = start.end()
        if _SIGNED.match(text, at) or _SIGNED_LINE.match(text, at):
            marks[at] = _Mark(at, at, "", "dropped")
        elif match := _AT_LINE.match(text, at):
            mark = _mark(match[1], at, match.end(), ":" in match[0], bool(match[2]))
            if mark:
                marks[match.end()] = mark
    for start in _SIGNED_IN_LINE.finditer(text):
        marks.setdefault(start.end(), _Mark(start.end(), start.end(), "", "dropped"))
    at = text.find(":")
    while at >= 0:
        is_time = text[at - 1 : at].isdigit() and text[at + 1 : at + 2].isdigit()
        if not is_time and at + 1 not in marks and (mark := _mark_in_line(text, at)):
            marks[at + 1] = mark
        at = text.find(":", at + 1)
    return sorted(marks.values(), key=lambda mark: mark.start)


def _mark_in_line(text: str, colon: int) -> _Mark | None:
    """The heading before a colon inside a line: a whole sentence so far, or in capitals; exports lose ends of lines."""
    match = _FROM_COLON.match(text[max(0, colon - _LONGEST_HEADING) : colon][::-1])
    if match is None:
        return None
    heading, has_number = match[2][::-1].lstrip(" \t&/-"), match[1] is not None
    begin = colon - match.start(2) - len(heading)
    if text[max(0, begin - _LONGEST_HEADING) : begin].rstrip(" \t")[-1:] in (".", "\n", ""):
        mark = _mark(heading, begin, colon + 1, True, has_number)
        if mark:
            return mark
    words = heading.split(" ")
    # The longest heading that ends here: what stands before it in capitals may belong to a sentence.
    for first in range(len(words)):
        name = " ".join(words[first:])
        start = begin + len(heading) - len(name)
        if name.isupper() and text[start - 1 : start] in ("", " ", "\t", "\n", "."):
            mark = _mark(name, start, colon + 1, True, has_number)
            if mark:
                return mark
    return None


def _mark(heading: str, start: int, end: int, has_colon: bool, has_number: bool) -> _Mark | None:
    name = " ".join(heading.upper().split())
    section = _SECTION.get(name)
    if section is None or (section == "part" and not has_colon):
        return None
    if has_number and name != "ADDENDUM" and not _BIRADS.match(name):
        return None
    # "Right breast:" and "BI-RADS 2: Benign" are part of what they stand before.
    is_text = section == "part" or (has_number and name != "ADDENDUM")
    return _Mark(start, start if is_text else end, name, section)


def _body(mark: _Mark, text: str) -> str:
    """The text under a heading; where the heading says what the text is of, it stays before it."""
    text = text.strip()
    if mark.section != "impression" or not text or mark.start == mark.end:
        return text
    if _BIRADS.match(mark.name):
        return f"BI-RADS: {text}"
    return f"{mark.name.capitalize()}: {text}" if text[0].isdigit() and "ASSESSMENT" in mark.name else text
