"""Kinds of objects, sides, views and vendors as PACS exports hold them: each is taken, or skipped with its word.

The kinds are those of the project's acceptance corpus; the files are made here.
"""

from pathlib import Path
from typing import Any

import pytest

from dicom_answers import row_of, word_of
from dicom_encodings import dicom_file, view_code

MG_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.2.1"
TOMOSYNTHESIS, SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.13.1.3", "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"SOPClassUID": MG_PROCESSING, "PresentationIntentType": "FOR PROCESSING"}, "for_processing"),
        ({"SOPClassUID": TOMOSYNTHESIS, "NumberOfFrames": 2}, "multi_frame"),
        ({"NumberOfFrames": 2}, "multi_frame"),
        ({"SOPClassUID": SECONDARY_CAPTURE}, "secondary_capture"),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMO", "GENERATED_2D", "", "150000"]}, "synthetic_2d"),
        ({"SeriesDescription": "L MLO C-View"}, "synthetic_2d"),
        ({"ImageType": ["DERIVED", "PRIMARY", "POST_CONTRAST", "SUBTRACTION"]}, "contrast_enhanced"),
        ({"QualityControlImage": "YES"}, "quality_control"),
        ({"BurnedInAnnotation": "YES"}, "burned_in_annotation"),
        ({"Modality": "CR"}, "not_mg"),
        ({"Modality": "US", "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "not_mg"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "not_greyscale"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "not_greyscale"),
        ({"ImageLaterality": None}, "missing_laterality"),
        ({"ImageLaterality": ""}, "missing_laterality"),
        ({"ImageLaterality": "B"}, "missing_laterality"),
        ({"Laterality": "R"}, "contradicting_tags"),
        ({"ViewPosition": None}, "missing_view"),
        ({"ViewCodeSequence": view_code("399162004", "SCT")}, "contradicting_tags"),
        *(({"ViewPosition": view}, "non_standard_view") for view in ("ML", "LM", "XCCL", "XCCM", "LMO", "SIO")),
        *(
            ({"ViewPosition": None, "ViewCodeSequence": view_code(code, "SCT")}, "non_standard_view")
            for code in ("399260004", "399352003", "399265009", "399101009", "399188001")
        ),
        *(
            ({"ViewCodeSequence": view_code("399368009", "SCT", modifier)}, "view_modifier")
            for modifier in ("399163009", "399055006", "399209000", "399011000", "399161006", "399197007", "399226007")
        ),
    ],
)
def test_what_is_no_screening_view_is_skipped_with_its_word(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    assert word_of(tmp_path, dicom_file(**changes)) == word


@pytest.mark.parametrize(
    ("changes", "side", "view"),
    [
        ({"ImageLaterality": "", "Laterality": "L"}, "L", "MLO"),
        ({"ViewPosition": None, "ViewCodeSequence": view_code("R-10242", "SNM3")}, "L", "CC"),
        ({"ViewPosition": None, "ViewCodeSequence": view_code("R-10226", "SRT")}, "L", "MLO"),
        ({"ViewPosition": None, "ViewCodeSequence": view_code("399162004", "SCT")}, "L", "CC"),
        (
            {"ViewPosition": "CC", "ViewCodeSequence": view_code("399162004", "SCT"), "PatientOrientation": ["A", "R"]},
            "L",
            "CC",
        ),
        ({"NumberOfFrames": 1}, "L", "MLO"),
        ({"NumberOfFrames": 0}, "L", "MLO"),
        ({"PresentationIntentType": None, "PatientOrientation": None, "ImagerPixelSpacing": None}, "L", "MLO"),
        ({"HighBit": None, "SamplesPerPixel": None}, "L", "MLO"),
        ({"SpecificCharacterSet": "ISO_IR 192", "PatientName": "山田^太郎"}, "L", "MLO"),
        ({"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"}, "L", "MLO"),
    ],
)
def test_side_and_view_come_from_wherever_they_stand(
    tmp_path: Path, changes: dict[str, Any], side: str, view: str
) -> None:
    row = row_of(tmp_path, dicom_file(**changes))
    assert (row.laterality, row.view) == (side, view)


@pytest.mark.parametrize("implant", ["YES", "NO"])
def test_an_implant_is_flagged_and_its_displaced_view_skipped(tmp_path: Path, implant: str) -> None:
    row = row_of(tmp_path, dicom_file(BreastImplantPresent=implant))
    assert row.flagged == ("implant" if implant == "YES" else "")
    displaced = view_code("399368009", "SCT", "399209000")
    assert word_of(tmp_path, dicom_file(BreastImplantPresent=implant, ViewCodeSequence=displaced)) == "view_modifier"


@pytest.mark.parametrize(
    ("manufacturer", "vendor"),
    [
        ("HOLOGIC, Inc.", "hologic"),
        ("LORAD, A Hologic Company", "hologic"),
        ("GE MEDICAL SYSTEMS", "ge"),
        ("GE HEALTHCARE", "ge"),
        ("SIEMENS", "siemens"),
        ("Siemens Healthineers", "siemens"),
        ("FUJIFILM Corporation", "fujifilm"),
        ("Philips Digital Mammography Sweden AB", "philips"),
        ("Sectra Imtec AB", "philips"),
        ("Planmed Oy", "planmed"),
        ("IMS s.r.l.", "ims-giotto"),
        ("Agfa-Gevaert AG", "agfa"),
        ("KODAK", "carestream"),
        ("", "other"),
    ],
)
def test_a_vendor_becomes_one_word(tmp_path: Path, manufacturer: str, vendor: str) -> None:
    row = row_of(tmp_path, dicom_file(Manufacturer=manufacturer))
    assert row.vendor == vendor
