import io
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_fixtures import breast_pixels, mammogram_dataset
from mammofed_shared.dicom.choose import refuse_other_objects
from mammofed_shared.dicom.header import Header, read_header
from mammofed_shared.dicom.orientation import chest_wall_is_left, laterality_of, position_of, view_of
from mammofed_shared.errors import UnreadableImage
from mammofed_shared.exam import Laterality, View


def header_of(**changes: Any) -> Header:
    buffer = io.BytesIO()
    mammogram_dataset(**changes).save_as(buffer, enforce_file_format=True)
    return read_header(buffer)[0]


def view_code(code: str, *modifiers: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = code, "SCT"
    item.ViewModifierCodeSequence = [Dataset() for _ in modifiers]
    return [item]


def frame_laterality(side: str) -> list[Dataset]:
    anatomy, groups = Dataset(), Dataset()
    anatomy.FrameLaterality = side
    groups.FrameAnatomySequence = [anatomy]
    return [groups]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"ImageLaterality": "R"}, "image"),
        ({"ImageLaterality": "", "Laterality": "R"}, "series"),
        ({"ImageLaterality": None, "SharedFunctionalGroupsSequence": frame_laterality("R")}, "frame"),
    ],
)
def test_the_side_is_read_from_each_of_its_places(changes: dict[str, Any], place: str) -> None:
    assert laterality_of(header_of(**changes)) == (Laterality.R, place)


@pytest.mark.parametrize(
    ("changes", "view", "place"),
    [
        ({"ViewPosition": "CC"}, View.CC, "view_position"),
        ({"ViewPosition": None, "ViewCodeSequence": view_code("R-10242")}, View.CC, "view_code"),
        ({"ViewCodeSequence": view_code("399368009")}, View.MLO, "view_position"),
    ],
)
def test_the_view_is_read_from_position_and_code(changes: dict[str, Any], view: View, place: str) -> None:
    assert view_of(header_of(**changes)) == (view, place)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ImageLaterality": None}, "missing_laterality"),
        ({"Laterality": "R"}, "contradicting_tags"),
        ({"ViewPosition": "ML"}, "non_standard_view"),
        ({"ViewPosition": None}, "missing_view"),
        ({"ViewCodeSequence": view_code("399162004")}, "contradicting_tags"),
        ({"ViewCodeSequence": view_code("399368009", "spot")}, "view_modifier"),
        ({"PatientOrientation": ["F", "A"]}, "rotated"),
    ],
)
def test_tags_that_do_not_settle_side_and_view_refuse_the_image(changes: dict[str, Any], reason: str) -> None:
    header = header_of(**changes)
    with pytest.raises(UnreadableImage) as refused:
        position_of(header, laterality_of(header)[0], view_of(header)[0])
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Modality": "US"}, "not_mg"),
        ({"NumberOfFrames": 5}, "multi_frame"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "for_processing"),
        ({"QualityControlImage": "YES"}, "quality_control"),
        ({"BurnedInAnnotation": "YES"}, "burned_in_annotation"),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMO", "GENERATED_2D"]}, "synthetic_2d"),
        ({"ImageType": ["DERIVED", "PRIMARY", "POST_CONTRAST"]}, "contrast_enhanced"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary_capture"),
    ],
)
def test_objects_that_are_no_screening_image_are_skipped(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnreadableImage) as refused:
        refuse_other_objects(header_of(**changes), has_pixels=True, takes_secondary_capture=False)
    assert refused.value.reason == reason


def test_an_implant_does_not_refuse_an_image() -> None:
    refuse_other_objects(header_of(BreastImplantPresent="YES"), has_pixels=True, takes_secondary_capture=False)


def test_the_rows_direction_tells_the_chest_wall_before_the_side_does() -> None:
    header = header_of(PatientOrientation=["P", "FL"])
    assert not position_of(header, Laterality.L, View.MLO).chest_wall_left
    header = header_of(PatientOrientation=None)
    assert position_of(header, Laterality.L, View.MLO).chest_wall_left
    assert not position_of(header, Laterality.R, View.MLO).chest_wall_left


def test_columns_that_run_to_the_head_are_upside_down() -> None:
    header = header_of(PatientOrientation=["A", "HR"])
    assert position_of(header, Laterality.L, View.MLO).upside_down


def test_the_pixels_tell_the_chest_wall() -> None:
    breast = breast_pixels() > 0
    box = breast[:, : breast.any(0).sum()]
    assert chest_wall_is_left(box) is True
    assert chest_wall_is_left(box[:, ::-1]) is False
    assert chest_wall_is_left(np.ones((40, 30), np.bool_)) is None
