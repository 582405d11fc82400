"""The pointing game: does the highest point of a map lie in the box of the finding, and how often would chance hit.

Source: Zhang et al. 2016, *Top-down Neural Attention by Excitation Backprop*, section 4.2: hits / (hits + misses). An
exam is one trial: its map is that of all views together. Only the breast counts, for maps and for chance.

Shapes: V views, H rows and W columns of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of a prepared image; bottom and right are the first beyond it, and parts of pixels are
    allowed."""

    top: float
    left: float
    bottom: float
    right: float


def in_boxes(boxes: Sequence[Box], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixels (H, W) have their centre in one of the boxes."""
    rows, columns = np.arange(size[0])[:, None] + 0.5, np.arange(size[1])[None] + 0.5
    inside_HW = np.zeros(size, np.bool_)
    for box in boxes:
        inside_HW |= (rows >= box.top) & (rows < box.bottom) & (columns >= box.left) & (columns < box.right)
    return inside_HW


def pointing_hit(maps_VHW: NDArray[np.float32], boxes: Sequence[Sequence[Box]], breast_VHW: NDArray[np.bool_]) -> float:
    """1 if the highest point of all views is in a box of its view, else 0; between several highest points, the share
    of them that is.

    Args:
        boxes: of each view; no box where the finding is not seen.
        breast_VHW: which pixels count; prepared images are 0 outside the breast.

    Raises:
        ValueError: no pixel is breast.
    """
    if not breast_VHW.any():
        raise ValueError("the pointing game needs a breast: all pixels are background")
    highest_VHW = breast_VHW & (maps_VHW == maps_VHW[breast_VHW].max())
    return float((_inside(boxes, breast_VHW) & highest_VHW).sum() / highest_VHW.sum())


def random_hit(boxes: Sequence[Sequence[Box]], breast_VHW: NDArray[np.bool_]) -> float:
    """What a random point of the breast hits in the mean: the boxes' share of its area, over all views.

    Args, Raises: as ``pointing_hit``.
    """
    return pointing_hit(np.zeros(breast_VHW.shape, np.float32), boxes, breast_VHW)


def _inside(boxes: Sequence[Sequence[Box]], breast_VHW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.stack([in_boxes(of_view, breast_HW.shape) for of_view, breast_HW in zip(boxes, breast_VHW, strict=True)])
