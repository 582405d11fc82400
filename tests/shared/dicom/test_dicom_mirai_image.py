"""The picture that MIRAI sees: 16 bit as DCMTK gives it, one size, chest wall right."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_fixtures import breast_pixels, write_mammogram
from mammofed_shared.dicom.mirai_image import ExamFiles, RefusedFile, mirai_image, mirai_images, resized
from mammofed_shared.dicom.preprocess import Refusal

RAMP = np.linspace(100, 1100, 64 * 40).astype(np.uint16).reshape(64, 40)
"""Each row brighter towards the right, so that it stays as it is."""


def whole(path: Path, pixels: NDArray[np.uint16], **changes: Any) -> NDArray[np.int32]:
    """The picture at the file's own size."""
    write_mammogram(path, pixels, **changes)
    return mirai_image(path, pixels.shape)


def test_grey_values_run_from_the_minimum_to_the_maximum_and_fractions_are_cut_off(tmp_path: Path) -> None:
    image = whole(tmp_path / "a", RAMP, WindowCenter=300, WindowWidth=50, RescaleSlope=2, RescaleIntercept=-7)

    expected = (RAMP.astype(np.int64) - 100) * 65535 // 1000
    np.testing.assert_array_equal(image, expected)


def test_dense_is_bright_whatever_the_photometric_interpretation(tmp_path: Path) -> None:
    inverted = whole(tmp_path / "a", (1200 - RAMP).astype(np.uint16), PhotometricInterpretation="MONOCHROME1")

    np.testing.assert_array_equal(inverted, (RAMP.astype(np.int64) - 100) * 65535 // 1000)


def test_padding_is_a_pixel_like_all_others(tmp_path: Path) -> None:
    pixels = RAMP.copy()
    pixels[0, 0] = 0

    image = whole(tmp_path / "a", pixels, PixelPaddingValue=0)

    assert image[0, 0] == 0
    assert image[0, 1] == (int(pixels[0, 1]) * 65535) // 1100


def test_of_ge_the_lookup_table_decides_and_of_others_it_does_not(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTExplanation = [2048, 0, 12], "NORMAL"
    table.LUTData = np.minimum(np.arange(2048) * 3, 4095).astype(np.uint16).tolist()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    attributes = {"VOILUTSequence": [table]}

    ge = whole(tmp_path / "ge", RAMP, Manufacturer="GE MEDICAL SYSTEMS", **attributes)
    hologic = whole(tmp_path / "hologic", RAMP, Manufacturer="HOLOGIC, Inc.", **attributes)

    np.testing.assert_array_equal(ge, np.minimum(RAMP.astype(np.int64) * 3, 4095) * 65535 // 4095)
    np.testing.assert_array_equal(hologic, (RAMP.astype(np.int64) - 100) * 65535 // 1000)


def test_the_chest_wall_comes_to_the_right_and_stays_there(tmp_path: Path) -> None:
    left = breast_pixels()
    right = np.ascontiguousarray(left[:, ::-1])

    turned, kept = whole(tmp_path / "left", left), whole(tmp_path / "right", right)

    np.testing.assert_array_equal(turned, kept)
    assert kept[:, -20:].sum() > 2 * kept[:, :20].sum()


def test_a_picture_is_forced_to_its_size_and_averaged_over_what_a_pixel_covers() -> None:
    grey = np.zeros((8, 12), np.int32)
    grey[3, 5] = 6400

    small = resized(grey, (4, 6))

    # A triangle of the width of two new pixels: a row of 1, 3, 3, 1 eighths in each direction.
    assert small.shape == (4, 6)
    assert small[1, 2] == 6400 * 9 // 64
    assert small[2, 2] == small[1, 3] == 6400 * 3 // 64
    assert resized(np.arange(48, dtype=np.int32).reshape(6, 8), (5, 3)).shape == (5, 3)


def test_a_constant_and_a_damaged_file_refuse_the_exam_by_their_place(tmp_path: Path) -> None:
    sound = write_mammogram(tmp_path / "sound")
    blank = write_mammogram(tmp_path / "blank", np.full((64, 40), 7, np.uint16))
    cut = tmp_path / "cut"
    cut.write_bytes(sound.read_bytes()[:-500])

    def of(*paths: Path) -> object:
        return mirai_images(ExamFiles(paths, (32, 20)))

    assert of(sound, blank) == RefusedFile(1, Refusal("blank_image", "all pixels are equal"))
    found = of(sound, sound, cut)
    assert isinstance(found, RefusedFile) and (found.index, found.refusal.reason) == (2, "truncated")
    assert of(tmp_path / "none") == RefusedFile(0, Refusal("unreadable_file", "FileNotFoundError"))
    images = of(sound, sound)
    assert isinstance(images, tuple) and [image.shape for image in images] == [(32, 20), (32, 20)]
