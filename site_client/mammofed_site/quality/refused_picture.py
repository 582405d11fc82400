"""A coarse picture of a refused DICOM file, where its pixels can be had. For worker processes only: it may die."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.utils import pixel_array

from mammofed_shared.dicom.choose import FOR_PROCESSING_CLASS
from mammofed_shared.dicom.data_set import PARSING_ERRORS
from mammofed_shared.dicom.header import read_header
from mammofed_shared.dicom.read import decode
from mammofed_shared.dicom.window import to_grey
from mammofed_shared.errors import UnreadableImage
from mammofed_site.quality.thumbnails import jpeg

Bytes = NDArray[np.uint8]

LONGEST, LEAST_REDUCTION = 80, 12
"""Longer side in pixels, and by how much the image is reduced at least. A name may be burned into it: letters of a
twentieth of its height, three times the usual, are then 4 pixels high, and nobody can read them."""
_MOST_PIXELS = 1 << 26
"""Larger frames are not shown: a header may ask for gigabytes."""


def of_dicom(path: Path) -> bytes | None:
    """The file's image, or the middle one of several, as a small JPEG; None where it has none that can be decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote the header
        grey = _as_intake_reads_it(path)
        if grey is None:
            grey = _as_pydicom_reads_it(path)
    return None if grey is None else jpeg(grey, max(1, min(LONGEST, max(grey.shape) // LEAST_REDUCTION)))


def _as_intake_reads_it(path: Path) -> Bytes | None:
    """A single grey frame through the checked reader, bright meaning dense."""
    try:
        with path.open("rb") as file:
            header, rest = read_header(file)
            if (header.frames or 1) > 1:
                return None
            codes, shape = decode(header, rest)
        grey, _ = to_grey(codes, shape, header, "paper")
    except (UnreadableImage, OSError):
        return None
    is_raw = header.intent == "FOR PROCESSING" or header.sop_class == FOR_PROCESSING_CLASS
    # What the detector counts is high where little is in the way.
    return np.asarray(cv2.bitwise_not(grey), np.uint8) if is_raw and header.photometric != "MONOCHROME1" else grey


def _as_pydicom_reads_it(path: Path) -> Bytes | None:
    """The middle frame of anything else: several frames, colour, what the checked reader does not trust."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Rows", "Columns", "NumberOfFrames"])
        if not 0 < int(header.Rows) * int(header.Columns) <= _MOST_PIXELS:
            return None
        frame = pixel_array(path, index=int(header.get("NumberOfFrames") or 1) // 2)
    except (RuntimeError, *PARSING_ERRORS):
        return None
    values = frame.astype(np.float32)
    if values.ndim == 3:
        values = values.mean(2)
    return np.asarray(cv2.normalize(values, values, 0, 255, cv2.NORM_MINMAX), np.uint8)
