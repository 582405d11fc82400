"""Where the breast is in a grey mammogram: its box and its silhouette, without labels and film borders."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mammofed_shared.dicom.reasons import Reason
from mammofed_shared.dicom.window import GreyImage
from mammofed_shared.errors import UnreadableImage

_LOOK_HEIGHT = 760
"""The silhouette is found on about so many rows: finer changes nothing, and costs 30 ms on a full-size image.
"""
_LEAST_SHARE = 0.005
"""A breast that covers less of the image than this is none."""
_THIN = 15
"""Rims of digitised film are thinner than this, at ``_LOOK_HEIGHT`` rows."""


@dataclass(frozen=True, slots=True)
class Breast:
    """The breast's box in the image, and inside it which pixels are breast.

    ``silhouette`` is 1 on the breast and stands for squares of ``step`` × ``step`` pixels.
    """

    top: int
    left: int
    height: int
    width: int
    silhouette: NDArray[np.uint8]
    step: int

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(height, width), true on the breast."""
        whole = np.repeat(np.repeat(self.silhouette.astype(np.bool_), self.step, 1), self.step, 0)
        return whole[: self.height, : self.width]

    def sampled(self, first_row: int, first_column: int, step: int) -> NDArray[np.bool_]:
        """``mask[first_row::step, first_column::step]``, which costs less than the mask."""
        rows = np.arange(first_row, self.height, step) // self.step
        columns = np.arange(first_column, self.width, step) // self.step
        return self.silhouette[np.ix_(rows, columns)].astype(np.bool_)

    def resized(self, height: int, width: int) -> NDArray[np.uint8]:
        """The mask on other rows and columns: 255 where at least half of a pixel is breast, else 0."""
        coverage = cv2.resize(self.silhouette * np.uint8(255), (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.threshold(coverage, 127, 255, cv2.THRESH_BINARY)[1], np.uint8)


def find_breast(grey: NDArray[np.uint8] | GreyImage, threshold: int) -> Breast:
    """The largest connected area of at least ``threshold``, its holes filled, and its box.

    The paper finds the box by the rows and columns that are not constant after the threshold (FM,
    Preprocessing). The largest area is the same where the background is clean, and leaves out side markers,
    scratches and the white rims of digitised film where it is not.

    Raises:
        UnreadableImage: no such area, or a tiny one (``blank_image``).
    """
    step = max(1, grey.shape[0] // _LOOK_HEIGHT)
    above = (grey[::step, ::step] >= max(threshold, 1)).astype(np.uint8)
    silhouette = _filled(_largest_area(above))
    rows, columns = np.flatnonzero(silhouette.any(1)), np.flatnonzero(silhouette.any(0))
    box = silhouette[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    top, left = int(rows[0]) * step, int(columns[0]) * step
    height = min(box.shape[0] * step, grey.shape[0] - top)
    if step > 1:
        height -= height % 4  # the grid is coarser than that, and ``resize`` works on four bands of equal height
    width = min(box.shape[1] * step, grey.shape[1] - left)
    return Breast(top, left, height, width, box, step)


def _largest_area(above: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The largest area, cut off from what hangs on it by less than ``_THIN`` pixels: rims touch the breast."""
    kernel = np.ones((_THIN, _THIN), np.uint8)
    thick = cv2.morphologyEx(above, cv2.MORPH_OPEN, kernel)
    outlines, _ = cv2.findContours(thick, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        raise UnreadableImage(Reason.BLANK_IMAGE, "no breast is brighter than the background")
    largest = max(outlines, key=cv2.contourArea)
    if cv2.contourArea(largest) < _LEAST_SHARE * above.size:
        raise UnreadableImage(Reason.BLANK_IMAGE, "the brightest area is too small for a breast")
    area = np.zeros_like(above)
    cv2.drawContours(area, [largest], -1, 1, thickness=cv2.FILLED)
    # Opening has rounded the skin line off: take back what lies within its reach.
    return np.where(cv2.dilate(area, kernel) > 0, above, 0).astype(np.uint8)


def _filled(silhouette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    contours, _ = cv2.findContours(silhouette, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(silhouette)
    cv2.drawContours(filled, contours, -1, 1, thickness=cv2.FILLED)
    return filled
