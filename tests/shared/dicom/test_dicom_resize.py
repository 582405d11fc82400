import cv2
import numpy as np
import pytest

from dicom_fixtures import breast_pixels
from mammofed_shared.dicom.resize import resized
from mammofed_shared.dicom.window import GreyImage

WHOLE = slice(None), slice(None)


def grained(rows: int, columns: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    grain = np.random.default_rng(0).integers(0, 400, (rows, columns)).astype(np.uint16)
    return np.minimum(breast_pixels(rows, columns) + grain, 4095).astype(np.uint16)


def shown(codes: np.ndarray[tuple[int, int], np.dtype[np.uint16]], *, is_line: bool) -> GreyImage:
    table = np.rint(np.arange(65536) * 255 / 4095).clip(0, 255).astype(np.uint8)
    return GreyImage(codes, table, (255 / 4095, 0.0) if is_line else None, np.zeros(65536, np.bool_), is_followed=True)


@pytest.mark.parametrize("rows", [640, 641, 642])
def test_bands_give_what_the_whole_gives(rows: int) -> None:
    grey = shown(grained(rows, 403), is_line=False)
    expected = cv2.resize(grey[:, :], (180, 300), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(resized(grey, WHOLE, 300, 180, area=True), expected)


def test_averaging_stored_values_is_nearer_to_the_mean_than_averaging_grey_ones() -> None:
    codes = grained(640, 400)
    truth = cv2.resize(codes.astype(np.float64) * 255 / 4095, (160, 256), interpolation=cv2.INTER_AREA)
    stored, grey = (resized(shown(codes, is_line=is_line), WHOLE, 256, 160, area=True) for is_line in (True, False))
    assert np.abs(stored - truth).max() <= 0.54
    assert np.abs(stored - truth).mean() < np.abs(grey - truth).mean()
    assert np.abs(stored.astype(int) - grey).max() <= 1


@pytest.mark.parametrize("area", [True, False])
def test_an_enlarged_box_is_interpolated(area: bool) -> None:
    grey, box = shown(grained(100, 80), is_line=True), (slice(10, 60), slice(0, 80))
    expected = cv2.resize(grey[box], (120, 90), interpolation=cv2.INTER_LINEAR)
    assert np.abs(resized(grey, box, 90, 120, area=area).astype(int) - expected).max() <= 1


def test_without_averaging_a_shrunk_box_is_interpolated() -> None:
    grey = shown(grained(640, 400), is_line=False)
    expected = cv2.resize(grey[:, :], (160, 256), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resized(grey, WHOLE, 256, 160, area=False), expected)
