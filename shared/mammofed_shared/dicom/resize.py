"""A box of a grey image at another size.

Averaging full-size pixels is the dearest step after decoding. Where grey values are linear in the stored ones, it
is the stored ones that are averaged, which are finer than 8 bits and need no full-size grey image; and OpenCV does
it on four bands of rows at once in little more than half the time.
"""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammofed_shared.dicom.window import GreyImage

Box = tuple[slice, slice]
_BANDS = 4
"""Most channels that OpenCV averages."""


def resized(grey: GreyImage, box: Box, height: int, width: int, *, area: bool) -> NDArray[np.uint8]:
    """The pixels of ``box`` on ``height`` rows and ``width`` columns.

    Args:
        area: average where the box shrinks on both sides; else, and without it, interpolate. Averaging that enlarges
            would repeat pixels.
    """
    rows, columns = grey.codes[box].shape
    is_averaged = area and rows >= height and columns >= width
    resize = _averaged if is_averaged else _interpolated
    if grey.line is None:
        return resize(grey[box], height, width)
    return replace(grey, codes=resize(grey.codes[box], height, width))[:, :]


def _interpolated(pixels: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR))


def _averaged(pixels: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Mean of the area that each new pixel covers; the same values whether in bands or not."""
    if len(pixels) % _BANDS or height % _BANDS:
        return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA))
    bands = cv2.merge(np.split(pixels, _BANDS))
    small = cv2.resize(bands, (width, height // _BANDS), interpolation=cv2.INTER_AREA)
    return np.concatenate(cv2.split(small))
