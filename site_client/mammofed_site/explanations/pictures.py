"""Pictures of the pages: mammograms as JPEG, heat maps as transparent PNG to lie over them, thumbnails with a box.

Shapes: H rows and W columns of an image, h rows and w columns of the encoder's map.
"""

import base64
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mammofed_shared.interpretability.heat_map import up_sampled
from mammofed_shared.interpretability.pointing import Box

RAISES, LOWERS = (213, 94, 0), (0, 114, 178)
"""Red, green, blue of what raises and lowers a risk; told apart by colour-blind people too."""
_LONGEST, _LONGEST_OVERLAY, _LONGEST_THUMBNAIL = 1200, 600, 200
_MOST_OPAQUE = 190
_QUALITY, _THUMBNAIL_QUALITY = 85, 70
_BOX_COLOUR = (0, 94, 213)  # OpenCV's order: blue, green, red


def mammogram_uri(grey_HW: NDArray[np.uint8]) -> str:
    """A prepared image as a JPEG."""
    return _uri("jpeg", ".jpg", _shrunk(grey_HW, _LONGEST), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


def heat_uri(heat_hw: NDArray[np.float32], image_size: tuple[int, int], strongest: float) -> str:
    """A map in the shape of its image: the more it says, the less transparent; nothing where it says nothing.

    Args:
        strongest: what is drawn strongest, so that several maps can be compared.
    """
    heat_HW = _shrunk(up_sampled(heat_hw, image_size), _LONGEST_OVERLAY)
    opacity = np.clip(np.abs(heat_HW) / strongest, 0, 1) if strongest > 0 else np.zeros_like(heat_HW)
    red, green, blue = (np.where(heat_HW > 0, RAISES[part], LOWERS[part]) for part in range(3))
    picture = np.dstack([blue, green, red, np.round(opacity * _MOST_OPAQUE)]).astype(np.uint8)
    return _uri("png", ".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def thumbnail_uri(grey_HW: NDArray[np.uint8], box: Box) -> str:
    """A small image with a box drawn on it."""
    small = _shrunk(grey_HW, _LONGEST_THUMBNAIL)
    scale = small.shape[0] / grey_HW.shape[0]
    first, last = ((round(x * scale), round(y * scale)) for x, y in ((box.left, box.top), (box.right, box.bottom)))
    picture = cv2.rectangle(cv2.cvtColor(small, cv2.COLOR_GRAY2BGR), first, last, _BOX_COLOUR, 2)
    return _uri("jpeg", ".jpg", np.asarray(picture), [cv2.IMWRITE_JPEG_QUALITY, _THUMBNAIL_QUALITY])


def cell_box(cell: tuple[int, int], map_size: tuple[int, int], image_size: tuple[int, int]) -> Box:
    """The pixels of an image that one cell (row, column) of the map stands for."""
    down, across = image_size[0] / map_size[0], image_size[1] / map_size[1]
    return Box(cell[0] * down, cell[1] * across, (cell[0] + 1) * down, (cell[1] + 1) * across)


def _shrunk(picture: NDArray[Any], longest: int) -> NDArray[Any]:
    scale = longest / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def _uri(kind: str, suffix: str, picture: NDArray[Any], options: list[int]) -> str:
    encoded = cv2.imencode(suffix, picture, options)[1].tobytes()
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
