import random
import struct
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from mammofed_shared.dicom import structured_report
from mammofed_shared.dicom.structured_report import NoReport, StructuredReport, read_structured_report

BASIC_TEXT = "1.2.840.10008.5.1.4.1.1.88.11"
CAD = "1.2.840.10008.5.1.4.1.1.88.50"


def code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def content(value_type: str, name: Dataset, *children: Dataset, **values: Any) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType, item.ConceptNameCodeSequence = "CONTAINS", value_type, [name]
    for keyword, value in values.items():
        setattr(item, keyword, value)
    if children:
        item.ContentSequence = list(children)
    return item


def text(name: Dataset, value: str, *children: Dataset) -> Dataset:
    return content("TEXT", name, *children, TextValue=value)


def write_report(
    path: Path, *items: Dataset, sop_class: str = BASIC_TEXT, syntax: str = ExplicitVRLittleEndian
) -> Path:
    dataset = content("CONTAINER", code("111400", "Breast Imaging Report"), *items)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = sop_class, "1.2.3.9", "SR"
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.StudyInstanceUID, dataset.AccessionNumber = "1.2.3", "A7"
    dataset.PatientID, dataset.PatientName, dataset.StudyDate = "P1", "Canary^Carol", "20200110"
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = sop_class, "1.2.3.9"
    dataset.save_as(path, enforce_file_format=True)
    return path


FINDING, IMPRESSION = code("121071", "Finding"), code("121073", "Impression")


def test_sections_are_found_by_the_codes_of_their_containers(tmp_path: Path) -> None:
    path = write_report(
        tmp_path / "sr",
        content("CONTAINER", code("121060", "History"), text(FINDING, "Mother Carol had cancer.")),
        content("PNAME", code("121008", "Person Observer Name"), PersonName="Canary^Carol"),
        content("CONTAINER", code("121070", "Findings"), text(FINDING, "No mäss."), text(FINDING, "No nodes.")),
        content("CONTAINER", code("19005-8", "Impressions", "LN"), text(IMPRESSION, "Negative.")),
        content("CONTAINER", code("121076", "Conclusions"), text(FINDING, "See you next year.")),
        content("CONTAINER", code("111424", "Comparison to previous studies"), text(FINDING, "2019.")),
    )

    assert read_structured_report(path) == StructuredReport(
        study="1.2.3",
        accession="A7",
        patient="P1",
        study_date="20200110",
        findings="No mäss. \nNo nodes.",
        impression="Negative. \nSee you next year.",
        text="",
        birads=(),
    )


def test_sections_are_found_by_the_concept_names_of_text_items(tmp_path: Path) -> None:
    path = write_report(tmp_path / "sr", text(FINDING, "No mass."), text(IMPRESSION, "Negative."))
    found = read_structured_report(path)

    assert isinstance(found, StructuredReport)
    assert (found.findings, found.impression, found.text) == ("No mass.", "Negative.", "")


def test_text_under_no_section_comes_after_its_title(tmp_path: Path) -> None:
    path = write_report(
        tmp_path / "sr", text(code("X", "Clinical history", "99"), "Lump."), text(code("Y", "", "99"), "Report: A.")
    )
    found = read_structured_report(path)

    assert isinstance(found, StructuredReport)
    assert (found.findings, found.text) == ("", "Clinical history:\nLump. \nReport: A.")


@pytest.mark.parametrize(
    ("name", "value", "category"),
    [
        (code("111005", "Assessment Category"), code("397140005", "Mammography assessment (Category 1)", "SCT"), (1,)),
        (FINDING, code("6111000179101", "Known biopsy, proven malignancy", "SCT"), (6,)),
        (code("111005", "Assessment Category"), code("II.AC.a", "0 - Need additional imaging evaluation", "BI"), (0,)),
        (FINDING, code("MA.II.A.5.4A", "4A – Low suspicion", "BI"), (4,)),
        (code("111413", "Overall Assessment"), code("Z", "2: benign", "99"), (2,)),
        (FINDING, code("Z", "2 masses", "99"), ()),
    ],
)
def test_a_coded_assessment_is_read(tmp_path: Path, name: Dataset, value: Dataset, category: tuple[int, ...]) -> None:
    assessment = content("CODE", name, ConceptCodeSequence=[value])
    found = read_structured_report(write_report(tmp_path / "sr", text(FINDING, "A."), assessment))

    assert isinstance(found, StructuredReport)
    assert found.birads == category


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_other_encodings_are_read(tmp_path: Path, syntax: str) -> None:
    found = read_structured_report(write_report(tmp_path / "sr", text(FINDING, "A."), syntax=syntax))

    assert isinstance(found, StructuredReport)
    assert found.findings == "A."


def test_what_is_no_report_says_why(tmp_path: Path) -> None:
    finding = text(FINDING, "A.")

    assert read_structured_report(write_report(tmp_path / "cad", finding, sop_class=CAD)) is NoReport.MAMMOGRAPHY_CAD
    state = write_report(tmp_path / "pr", finding, sop_class="1.2.840.10008.5.1.4.1.1.11.1")
    assert read_structured_report(state) is NoReport.NOT_A_REPORT
    assert read_structured_report(write_report(tmp_path / "empty")) is NoReport.NO_TEXT
    assert read_structured_report(write_report(tmp_path / "long", text(FINDING, "x" * 200_000))) is NoReport.TOO_LARGE
    assert read_structured_report(tmp_path / "none") is NoReport.UNREADABLE
    (tmp_path / "large").write_bytes(bytes(1 << 23))
    assert read_structured_report(tmp_path / "large") is NoReport.TOO_LARGE


def nested(depth: int) -> bytes:
    """A content sequence in a content sequence and so on, in explicit little endian; pydicom cannot write it."""
    element = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0)
    for _ in range(depth):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(element)) + element
        element = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, len(item)) + item
    return element


def test_a_report_of_endless_depth_or_breadth_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = write_report(tmp_path / "flat", text(FINDING, "A.")).read_bytes()
    (tmp_path / "deep").write_bytes(flat[: flat.index(nested(0)[:6])] + nested(3000))
    assert read_structured_report(tmp_path / "deep") is NoReport.NO_TEXT
    monkeypatch.setattr(structured_report, "_MOST_ITEMS", 50)
    broad = [content("CODE", FINDING) for _ in range(51)]
    assert read_structured_report(write_report(tmp_path / "broad", *broad)) is NoReport.UNREADABLE


def test_no_damage_raises_an_error(tmp_path: Path) -> None:
    whole = write_report(
        tmp_path / "sr",
        content("CONTAINER", code("121070", "Findings"), text(FINDING, "No mass.")),
        content("CODE", code("111005", "Assessment"), ConceptCodeSequence=[code("397140005", "1", "SCT")]),
    ).read_bytes()
    random_ = random.Random(7)
    path = tmp_path / "damaged"
    for _ in range(400):
        damaged = bytearray(whole[: random_.randrange(len(whole))] if random_.random() < 0.3 else whole)
        for _ in range(random_.randrange(1, 6)):
            if damaged:
                damaged[random_.randrange(len(damaged))] = random_.randrange(256)
        path.write_bytes(damaged)
        assert isinstance(read_structured_report(path), StructuredReport | NoReport)
