"""Asymmetry on a phantom: fibroglandular tissue of one breast that the other has not, without outline or margin."""

import cv2
import numpy as np
from numpy.typing import NDArray

_CONTRAST = {"focal": 0.32, "global": 0.22}
"""Brightness added at the centre, in units of full scale: a mass has more, and an edge."""
_WIDTH = 0.55
"""Deviation of the density's bell in units of its radius."""
_REACH = 1.6
"""Where the bell is cut off, in radii: less than 0.02 of its height is left."""


def draw_asymmetry(
    image: NDArray[np.float32], random: np.random.Generator, subtype: str, row: float, column: float, radius: float
) -> None:
    """Add textured density around a point of an image, in place.

    Args:
        image: (height, width), tissue before exposure.
        random: draws the texture.
        subtype: ``focal`` or ``global``.
        radius: half of the finding's diameter in pixels.
    """
    extent = int(_REACH * radius) + 1
    top, left = max(int(row) - extent, 0), max(int(column) - extent, 0)
    patch = image[top : int(row) + extent, left : int(column) + extent]
    y, x = np.mgrid[0 : patch.shape[0], 0 : patch.shape[1]].astype(np.float32)
    distance = np.sqrt((y + (top - row)) ** 2 + (x + (left - column)) ** 2) / radius
    bell = np.exp(-0.5 * (distance / _WIDTH) ** 2)
    coarse = random.standard_normal((9, 9), dtype=np.float32)
    texture = cv2.resize(coarse, patch.shape[::-1], interpolation=cv2.INTER_CUBIC)
    patch += np.asarray(_CONTRAST[subtype] * bell * (1 + 0.3 * texture), np.float32)
