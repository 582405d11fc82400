"""Findings and impression of a free-text report, by the headings that hospitals use.

What stands under other headings (history, technique, comparison) and a signature are dropped: they are boilerplate, and
it is there that names stand.
"""

import re

from mammofed_shared.exam import Report

_FINDINGS = "FINDINGS|FINDING|MAMMOGRAPHIC FINDINGS|MAMMOGRAM FINDINGS|DESCRIPTION|REPORT"
_IMPRESSION = (
    "IMPRESSION|IMPRESSIONS|CONCLUSION|CONCLUSIONS|ASSESSMENT|FINAL ASSESSMENT|INTERPRETATION|OPINION|SUMMARY|"
    "RECOMMENDATION|RECOMMENDATIONS|BI-RADS|BIRADS"
)
_DROPPED = (
    "HISTORY|CLINICAL HISTORY|CLINICAL INDICATION|CLINICAL INFORMATION|INDICATION|REASON FOR EXAM|TECHNIQUE|"
    "COMPARISON|COMPARISONS|EXAM|EXAMINATION|PROCEDURE|STUDY|PATIENT|NAME|MRN|DOB|DATE|DATE OF EXAM|ACCESSION|"
    "REFERRING PHYSICIAN|RADIOLOGIST|ADDENDUM"
)
_SECTION = {
    word: section
    for words, section in ((_FINDINGS, "findings"), (_IMPRESSION, "impression"), (_DROPPED, "dropped"))
    for word in words.split("|")
}

_HEADING = re.compile(
    r"(?:^|(?<=[.\n]))[ \t]*("
    + "|".join(re.escape(word) for word in sorted(_SECTION, key=len, reverse=True))
    + r")[ \t]*(?::|-(?=\s)|$)",
    re.IGNORECASE | re.MULTILINE,
)
_SIGNATURE = re.compile(
    r"^[ \t]*(?:electronically signed|digitally signed|signed by|dictated by|transcribed by|approved by|"
    r"verified by|reported by|attending radiologist|i have personally reviewed)\b.*",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)


def split_report(text: str) -> Report:
    """Split a report into its two sections; without any heading the whole of it is findings.

    Several parts of one section are joined in order. A BI-RADS or recommendation part belongs to the impression.
    """
    text = _SIGNATURE.sub("", text)
    headings = list(_HEADING.finditer(text))
    if not any(_SECTION[match[1].upper()] != "dropped" for match in headings):
        # A heading that only drops things is no sign that the rest is divided.
        return Report(findings=_tidy(text), impression="")
    parts: dict[str, list[str]] = {"findings": [], "impression": [], "dropped": []}
    ends = [match.start() for match in headings[1:]] + [len(text)]
    for match, end in zip(headings, ends, strict=True):
        body = _tidy(text[match.end() : end])
        name = match[1].upper()
        if body and name in ("BI-RADS", "BIRADS"):
            body = f"BI-RADS: {body}"
        if body:
            parts[_SECTION[name]].append(body)
    return Report(findings=" ".join(parts["findings"]), impression=" ".join(parts["impression"]))


def _tidy(text: str) -> str:
    return " ".join(text.split())
