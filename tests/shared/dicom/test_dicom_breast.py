import cv2
import numpy as np
import pytest

from dicom_fixtures import breast_pixels
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.dicom.breast import find_breast
from mammofed_shared.dicom.preprocess import training_image
from mammofed_shared.dicom.window import GreyImage
from mammofed_shared.errors import UnreadableImage


def grey_breast() -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return breast_pixels(400, 260, highest=255).astype(np.uint8)


def shown(grey: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> GreyImage:
    return GreyImage(grey, np.arange(256, dtype=np.uint8), None, np.zeros(256, np.bool_), is_followed=True)


def test_a_side_marker_and_a_film_rim_are_not_breast() -> None:
    grey = grey_breast()
    clean = find_breast(grey, 40)
    grey[20:50, 230:250] = 255
    grey[:6, :] = 255
    grey[394:, :] = 255
    marked = find_breast(grey, 40)
    assert (marked.top, marked.left) == (clean.top, clean.left)
    assert (marked.height, marked.width) == (clean.height, clean.width)


def test_a_dark_hole_inside_the_breast_stays_breast() -> None:
    grey = grey_breast()
    grey[190:210, 60:80] = 0
    breast = find_breast(grey, 40)
    assert breast.mask[190 - breast.top, 60 - breast.left]


def test_the_box_of_a_large_image_holds_the_whole_breast() -> None:
    grey = breast_pixels(2400, 1600, highest=255).astype(np.uint8)
    breast = find_breast(grey, 40)
    rows, columns = np.flatnonzero((grey >= 40).any(1)), np.flatnonzero((grey >= 40).any(0))
    assert abs(breast.top - rows[0]) <= 3
    assert abs(breast.height - len(rows)) <= 6
    assert abs(breast.width - len(columns)) <= 6


@pytest.mark.parametrize("shape", [(400, 260), (2400, 1600), (2403, 1607)])
def test_samples_and_other_sizes_follow_the_mask(shape: tuple[int, int]) -> None:
    grey = breast_pixels(*shape, highest=255).astype(np.uint8)
    breast = find_breast(grey, 40)
    assert breast.mask.shape == (breast.height, breast.width)
    assert (breast.step > 1) == (shape[0] > 2000)
    np.testing.assert_array_equal(breast.sampled(3, 7, 4), breast.mask[3::4, 7::4])
    same = breast.resized(breast.height, breast.width) > 0
    assert np.mean(same != breast.mask) < 0.005
    half = cv2.resize(breast.mask.astype(np.uint8), (130, 200), interpolation=cv2.INTER_AREA) > 0
    assert np.mean((breast.resized(200, 130) > 0) != half) < 0.02


@pytest.mark.parametrize("grey", [np.zeros((100, 80), np.uint8), np.eye(100, dtype=np.uint8) * 255])
def test_an_image_without_a_breast_is_blank(grey: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> None:
    with pytest.raises(UnreadableImage) as refused:
        find_breast(grey, 40)
    assert refused.value.reason == "blank_image"


@pytest.mark.parametrize("keep", [False, True])
def test_the_background_is_cleared_unless_it_is_kept(keep: bool) -> None:
    grey = np.maximum(grey_breast(), 10)
    breast = find_breast(grey, 40)
    settings = PreprocessingSettings(height=200, width=130, keep_background=keep)
    image = training_image(shown(grey), breast, settings, flip=False, turn=False)
    assert image.shape == (200, 130)
    assert image[0, -1] == (10 if keep else 0)


def test_flip_and_turn_mirror_the_image() -> None:
    grey, settings = grey_breast(), PreprocessingSettings(height=200, width=130)
    grey[150:160, 20:30] = 255
    breast = find_breast(grey, 40)
    plain = training_image(shown(grey), breast, settings, flip=False, turn=False)
    assert not np.array_equal(plain, plain[::-1, ::-1])
    np.testing.assert_array_equal(training_image(shown(grey), breast, settings, flip=True, turn=False), plain[:, ::-1])
    np.testing.assert_array_equal(
        training_image(shown(grey), breast, settings, flip=True, turn=True), plain[::-1, ::-1]
    )
    np.testing.assert_array_equal(training_image(shown(grey), breast, settings, flip=False, turn=True), plain[::-1])
