import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_fixtures import mammogram_dataset
from mammofed_shared.dicom.header import read_header
from mammofed_shared.dicom.read import decode
from mammofed_shared.dicom.window import GreyImage, show, to_grey
from mammofed_shared.errors import UnreadableImage

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def grey_of(preset: str, pixels: NDArray[np.uint16] = RAMP, **changes: Any) -> tuple[NDArray[np.uint8], bool]:
    """Grey values in the order of the ramp's stored values, and whether the preset was followed."""
    buffer = io.BytesIO()
    mammogram_dataset(pixels, **changes).save_as(buffer, enforce_file_format=True)
    header, file = read_header(buffer)
    grey, is_followed = to_grey(*decode(header, file), header, preset)
    return grey.reshape(-1), is_followed


def test_the_paper_preset_stretches_minimum_to_maximum() -> None:
    grey, _ = grey_of("paper")
    np.testing.assert_array_equal(grey, np.rint(np.arange(4096) / 4095 * 255))


def test_a_negative_rescale_slope_inverts() -> None:
    np.testing.assert_array_equal(
        grey_of("paper", RescaleSlope=-1, RescaleIntercept=5000)[0], grey_of("paper")[0][::-1]
    )


def test_monochrome1_is_inverted() -> None:
    np.testing.assert_array_equal(
        grey_of("paper", PhotometricInterpretation="MONOCHROME1")[0], grey_of("paper")[0][::-1]
    )


def test_padding_becomes_background_and_does_not_stretch_the_window() -> None:
    pixels = np.minimum(RAMP, 2000).astype(np.uint16)
    pixels[-1] = 4095
    grey, _ = grey_of("paper", pixels, PixelPaddingValue=4095)
    assert (grey[-1], grey[2000]) == (0, 255)


def test_the_percentile_preset_cuts_half_a_percent_at_either_end() -> None:
    grey, _ = grey_of("percentile")
    assert (grey[20], grey[4075]) == (0, 255)
    assert 0 < grey[40] < grey[4000] < 255


def test_the_linear_window_follows_its_formula() -> None:
    # PS3.3 C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5) * 255 with c = 2048, w = 1001.
    grey, _ = grey_of("voi", WindowCenter=2048, WindowWidth=1001)
    x = np.arange(4096)
    expected = np.clip((x - 2047.5) / 1000 + 0.5, 0, 1) * 255
    np.testing.assert_array_equal(grey, np.rint(expected))


def test_the_exact_window_follows_its_formula() -> None:
    # PS3.3 C.11.2.1.3.2
    grey, _ = grey_of("voi", WindowCenter=2048, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")
    assert grey[2048] == 128
    np.testing.assert_array_equal(grey[[1548, 2548]], [0, 255])


def test_the_sigmoid_window_follows_its_formula() -> None:
    # PS3.3 C.11.2.1.3.1: 1 / (1 + exp(-4 (x - c) / w))
    grey, _ = grey_of("voi", WindowCenter=2048, WindowWidth=1000, VOILUTFunction="SIGMOID")
    assert grey[2298] == round(255 / (1 + np.exp(-1)))


def test_the_first_of_several_windows_is_taken() -> None:
    several, _ = grey_of("voi", WindowCenter=[2048, 10], WindowWidth=[1001, 5])
    np.testing.assert_array_equal(several, grey_of("voi", WindowCenter=2048, WindowWidth=1001)[0])


def test_a_voi_table_goes_before_the_window() -> None:
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 8]
    item.LUTData = list(range(255, -1, -1)) * 16
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    grey, _ = grey_of("voi", VOILUTSequence=[item], WindowCenter=2048, WindowWidth=1001)
    np.testing.assert_array_equal(grey[:256], np.arange(255, -1, -1))


@pytest.mark.parametrize(
    "window",
    [
        {},
        {"WindowCenter": 2048, "WindowWidth": 0},
        {"WindowCenter": 9e6, "WindowWidth": 9},
        {"WindowCenter": 1e308, "WindowWidth": 1e-300, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": -1e308, "WindowWidth": 1e-300, "VOILUTFunction": "SIGMOID"},
    ],
)
def test_without_a_usable_window_minimum_to_maximum_is_taken_and_told(window: dict[str, float]) -> None:
    grey, is_followed = grey_of("voi", **window)
    assert not is_followed
    np.testing.assert_array_equal(grey, grey_of("paper")[0])


def test_a_constant_image_is_blank() -> None:
    with pytest.raises(UnreadableImage) as refused:
        grey_of("paper", np.full((8, 8), 7, np.uint16))
    assert refused.value.reason == "blank_image"


def shown(preset: str, **changes: Any) -> GreyImage:
    buffer = io.BytesIO()
    mammogram_dataset(RAMP, **changes).save_as(buffer, enforce_file_format=True)
    header, file = read_header(buffer)
    return show(*decode(header, file), header, preset)


@pytest.mark.parametrize(
    ("preset", "changes", "is_line"),
    [
        ("paper", {}, True),
        ("paper", {"PhotometricInterpretation": "MONOCHROME1"}, True),
        ("paper", {"RescaleSlope": -2}, True),
        ("paper", {"PixelRepresentation": 1}, False),
        ("paper", {"PixelPaddingValue": 0}, False),
        ("voi", {"WindowCenter": 2048, "WindowWidth": 4096}, True),
        ("voi", {"WindowCenter": 2048, "WindowWidth": 1001}, False),
        ("percentile", {}, False),
    ],
)
def test_a_part_of_the_image_is_what_the_whole_has_there(preset: str, changes: dict[str, Any], is_line: bool) -> None:
    image = shown(preset, **changes)
    by_table = image.table[image.codes]
    assert (image.shape, image.line is not None) == ((64, 64), is_line)
    np.testing.assert_array_equal(image[:, :], by_table)
    np.testing.assert_array_equal(image[3:60, 5:50], by_table[3:60, 5:50])
    np.testing.assert_array_equal(image[2::5, ::3], by_table[2::5, ::3])


def test_an_image_that_is_turned_over_keeps_its_padding() -> None:
    image = shown("paper", PixelPaddingValue=4095)
    turned = image.turned_over()[:, :].reshape(-1)
    np.testing.assert_array_equal(turned[:-1], 255 - image[:, :].reshape(-1)[:-1])
    assert (image[:, :].reshape(-1)[-1], turned[-1]) == (0, 0)


@pytest.mark.parametrize("slope", [1e308, -1e308, 1e40])
def test_a_rescale_beyond_all_numbers_is_refused(slope: float) -> None:
    with pytest.raises(UnreadableImage) as refused:
        grey_of("paper", RescaleSlope=slope, RescaleIntercept=slope)
    assert refused.value.reason == "bad_header"
