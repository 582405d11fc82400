"""Small JPEG pictures, so small that hundreds fit into one page."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

LONGEST = 160
"""Longer side in pixels."""
MOST_BYTES = 4500
"""Of one picture: all that a page can hold, some four hundred, then stay under 3 MB."""
_QUALITIES = (75, 55, 35, 20, 10, 5)


def of_png(path: Path) -> bytes | None:
    """A prepared image as a JPEG; None where it cannot be read."""
    try:
        encoded = path.read_bytes()  # OpenCV would print the path of a file that it cannot open
    except OSError:
        return None
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE) if encoded else None
    return None if image is None else jpeg(np.asarray(image, np.uint8), LONGEST)


def jpeg(image: NDArray[np.uint8], longest: int) -> bytes:
    """A grey image as a JPEG of at most so many pixels a side and ``MOST_BYTES`` bytes; it is never enlarged.

    Grain costs bytes: the quality falls until the picture fits, which at the lowest it does for any 160 × 160 pixels.
    """
    scale = min(1.0, longest / max(image.shape))
    size = [max(1, round(side * scale)) for side in image.shape[::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    for quality in _QUALITIES:
        encoded = bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
        if len(encoded) <= MOST_BYTES:
            break
    return encoded
