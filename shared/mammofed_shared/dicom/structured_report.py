"""The text of a DICOM Structured Report: its sections, its BI-RADS category, and whose it is.

Sources: content items PS3.3 C.17.3; section titles PS3.16 CID 7001, 7002, 6052 and 6053 (DCM and LOINC codes);
mammography assessment PS3.16 CID 6026 and 6027. Names of persons (PNAME items, PatientName) are never read.
"""

import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from mammofed_shared.dicom.data_set import PARSING_ERRORS, read_data_set
from mammofed_shared.errors import UnreadableImage

_SR = "1.2.840.10008.5.1.4.1.1.88."
_REPORTS = tuple(_SR + number for number in ("11", "22", "33", "34", "35"))
"""Basic Text, Enhanced, Comprehensive, Comprehensive 3D and Extensible SR."""
_MAMMOGRAPHY_CAD = _SR + "50"
_KEYWORDS = (
    *("SOPClassUID", "StudyInstanceUID", "AccessionNumber", "PatientID", "StudyDate", "SpecificCharacterSet"),
    *("ValueType", "ConceptNameCodeSequence", "ContentSequence"),
)
_TAGS = [tag for keyword in _KEYWORDS if (tag := tag_for_keyword(keyword)) is not None]

_FINDINGS = frozenset(("121070", "121071", "59776-5"))
_IMPRESSION = frozenset(
    (
        *("121072", "121073", "19005-8"),  # impression
        *("121076", "121077", "55110-1"),  # conclusion
        *("121074", "121075", "18783-1"),  # recommendation
        *("121111", "55112-7", "111412", "111413"),  # summary, overall assessment
        *("121078", "55107-7"),  # addendum
    )
)
_DROPPED = frozenset(
    (
        *("121060", "11329-0", "55752-0", "55108-5"),  # history, clinical information, presentation
        *("121062", "55115-0", "121109", "18785-6"),  # request, indications
        *("121064", "121065", "55111-9", "121058", "111424"),  # procedure, comparison
        *("121066", "55114-3", "121068", "121069", "18834-2"),  # prior procedures and findings
        *("55109-3", "116224001", "29549-3", "121113", "73569-6"),  # complications, medication, radiation
        *("73568-8", "121180", "55113-5"),  # communication, key images
    )
)
_CATEGORY = {
    "397138000": 0,
    "397140005": 1,
    "397141009": 2,
    "397143007": 3,
    "397144001": 4,
    "397145000": 5,
    "6111000179101": 6,
}
"""SNOMED CT code → BI-RADS category."""
_ASSESSMENT = frozenset(("111005", "111413"))
_OLDER_SCHEME = ("II.AC.", "MA.II.A.5.")
"""Codes of the BI-RADS scheme in older reports; their meanings begin with the category: ``4A – Low suspicion``."""

_MOST_BYTES = 1 << 22
_MOST_ITEMS = 20_000
_MOST_CHARACTERS = 1 << 17


class NoReport(StrEnum):
    """Why a file gives no report."""

    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    NOT_A_REPORT = "not_a_report"
    MAMMOGRAPHY_CAD = "mammography_cad"
    NO_TEXT = "no_text"


@dataclass(frozen=True, slots=True, repr=False)
class StructuredReport:
    """What a report object says; a missing identifier is empty. It holds identifiers, so it is never printed.

    ``text`` is what stands under no section of ours, one item a line after its title: it may still be divided by the
    headings inside it.
    """

    study: str
    accession: str
    patient: str
    study_date: str
    findings: str
    impression: str
    text: str
    birads: tuple[int, ...]


def read_structured_report(path: Path) -> StructuredReport | NoReport:
    """The text of one SR object, or why there is none; no content of the file can raise an error."""
    try:
        raw = _whole(path)
    except OSError:
        return NoReport.UNREADABLE
    if raw is None:
        return NoReport.TOO_LARGE
    try:
        with warnings.catch_warnings():
            # pydicom warns of odd values and quotes them; a quoted value may be a name.
            warnings.simplefilter("ignore")
            return _report(read_data_set(io.BytesIO(raw), _TAGS).attributes)
    except (UnreadableImage, *PARSING_ERRORS):
        return NoReport.UNREADABLE


def _whole(path: Path) -> bytes | None:
    with path.open("rb") as file:
        raw = file.read(_MOST_BYTES + 1)
    return None if len(raw) > _MOST_BYTES else raw


def _report(attributes: Dataset) -> StructuredReport | NoReport:
    sop_class = _text(attributes, "SOPClassUID")
    if sop_class == _MAMMOGRAPHY_CAD:
        return NoReport.MAMMOGRAPHY_CAD
    if sop_class not in _REPORTS:
        return NoReport.NOT_A_REPORT
    parts: dict[str, list[str]] = {"findings": [], "impression": [], "text": []}
    birads: list[int] = []
    length = 0
    for section, item in _items(attributes):
        kind = _text(item, "ValueType").upper()
        if kind == "TEXT" and section != "dropped":
            text = _text(item, "TextValue")
            length += len(text)
            if length > _MOST_CHARACTERS:
                return NoReport.TOO_LARGE
            parts[section].append(f"{_title(item)}:\n{text}" if section == "text" and _title(item) else text)
        elif kind == "CODE":
            birads += _category(item)
    findings, impression, text = (" \n".join(filter(None, lines)) for lines in parts.values())
    if not (findings or impression or text or birads):
        return NoReport.NO_TEXT
    return StructuredReport(
        study=_text(attributes, "StudyInstanceUID"),
        accession=_text(attributes, "AccessionNumber"),
        patient=_text(attributes, "PatientID"),
        study_date=_text(attributes, "StudyDate"),
        findings=findings,
        impression=impression,
        text=text,
        birads=tuple(birads),
    )


def _items(root: Dataset) -> Iterator[tuple[str, Dataset]]:
    """Content items in the order of reading, each with the section that it stands in."""
    waiting = [("text", item) for item in reversed(_sequence(root, "ContentSequence"))]
    for _ in range(_MOST_ITEMS):
        if not waiting:
            return
        above, item = waiting.pop()
        section = _section(item, above)
        yield section, item
        waiting += [(section, child) for child in reversed(_sequence(item, "ContentSequence"))]
    raise ValueError("a report of more items than any radiologist has written")


def _section(item: Dataset, above: str) -> str:
    codes = {_text(name, "CodeValue") for name in _sequence(item, "ConceptNameCodeSequence")}
    if above == "dropped" or codes & _DROPPED:
        return "dropped"
    if codes & _IMPRESSION:
        return "impression"
    # A single finding inside of the impression belongs to the impression.
    return "findings" if codes & _FINDINGS and above == "text" else above


def _category(item: Dataset) -> list[int]:
    """The BI-RADS category that a coded item says: by its code, or as an assessment whose meaning begins with it."""
    is_assessment = any(_text(name, "CodeValue") in _ASSESSMENT for name in _sequence(item, "ConceptNameCodeSequence"))
    found = []
    for code in _sequence(item, "ConceptCodeSequence"):
        category = _CATEGORY.get(_text(code, "CodeValue"))
        meaning = _text(code, "CodeMeaning")
        is_told = is_assessment or _text(code, "CodeValue").startswith(_OLDER_SCHEME)
        if category is None and is_told and re.match(r"[0-6](?![\d.])", meaning):
            category = int(meaning[0])
        if category is not None:
            found.append(category)
    return found


def _title(item: Dataset) -> str:
    return next((_text(name, "CodeMeaning") for name in _sequence(item, "ConceptNameCodeSequence")), "")


def _sequence(item: Dataset, keyword: str) -> list[Dataset]:
    value: Any = item.get(keyword)
    return list(value) if isinstance(value, Sequence) else []


def _text(item: Dataset, keyword: str) -> str:
    value: Any = item.get(keyword)
    return "" if value is None else str(value).strip().strip("\0")
