"""From a DICOM file to the picture that MIRAI was trained on, which is not the one that ours are prepared as.

The authors made 16-bit PNGs with DCMTK (``dcmj2pnm +on2 --min-max-window``; for GE with a VOI LUT ``--use-voi-lut 1``),
then resized them with Pillow, bilinear, to 1664 × 2048 whatever their shape, and mirrored them so that the chest wall
is right. Source: ``onconet/utils/dicom.py``, ``onconet/transformers/image.py`` and ``configs/mirai_trained.json`` of
https://github.com/reginabarzilaygroup/Mirai (MIT licence), and the README of https://github.com/yala/Mirai.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mammofed_shared.dicom.header import Header, read_header
from mammofed_shared.dicom.pixel_data import Shape
from mammofed_shared.dicom.preprocess import Refusal
from mammofed_shared.dicom.read import Codes, decode, stored_values
from mammofed_shared.dicom.reasons import Reason
from mammofed_shared.dicom.window import modality_values, vendor_window
from mammofed_shared.errors import UnreadableImage

Grey = NDArray[np.int32]
"""(height, width), 0..65535."""

_WHITE = 65535


@dataclass(frozen=True, slots=True)
class ExamFiles:
    """The files of one exam, and the (height, width) that the model wants."""

    paths: tuple[Path, ...]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """Which of an exam's files cannot be read, and why."""

    index: int
    refusal: Refusal


def mirai_images(exam: ExamFiles) -> tuple[Grey, ...] | RefusedFile:
    """The pictures of an exam in the order of its files, or the first file that gives none; for a worker process."""
    cv2.setNumThreads(1)  # the workers are the parallelism
    images = []
    for index, path in enumerate(exam.paths):
        try:
            images.append(mirai_image(path, exam.size))
        except UnreadableImage as refused:
            return RefusedFile(index, Refusal(str(refused.reason), str(refused).partition(": ")[2]))
        except OSError as error:
            return RefusedFile(index, Refusal(Reason.UNREADABLE_FILE, type(error).__name__))
    return tuple(images)


def mirai_image(path: Path, size: tuple[int, int]) -> Grey:
    """The picture of one file, resized and mirrored; (height, width) = ``size``.

    Raises:
        UnreadableImage: the file cannot be decoded, or is constant.
    """
    with path.open("rb") as file:
        header, pixels = read_header(file)
        codes, shape = decode(header, pixels)
    return chest_wall_right(resized(sixteen_bit(codes, shape, header), size))


def sixteen_bit(codes: Codes, shape: Shape, header: Header) -> Grey:
    """Stored bits as DCMTK shows them in 16 bit, bright meaning dense; fractions are cut off, as there.

    From the minimum of the image to its maximum, pixel padding included. Of GE, by the VOI LUT where there is one.

    Raises:
        UnreadableImage: the image is constant.
    """
    stored = stored_values(np.arange(1 << shape.bits_stored, dtype=np.uint32), shape)
    values = modality_values(stored, header)
    shown = vendor_window(values, header) if "GE" in header.manufacturer and header.voi_lut is not None else None
    if shown is None:
        occurring = values[np.unique(codes)]
        low, high = occurring.min(), occurring.max()
        if not high > low:
            raise UnreadableImage(Reason.BLANK_IMAGE, "all pixels are equal")
        shown = np.clip((values - low) / (high - low), 0.0, 1.0)
    if header.photometric == "MONOCHROME1":
        shown = 1.0 - shown
    # A whole number of grey values may come out a billionth below itself.
    table = np.floor(shown * _WHITE + 1e-6).astype(np.int32)
    return np.asarray(table[codes], np.int32)


def resized(grey: Grey, size: tuple[int, int]) -> Grey:
    """Bilinear over all pixels that a smaller one covers; the aspect ratio is not kept."""
    height, width = size
    return np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR), np.int32)


def chest_wall_right(grey: Grey) -> Grey:
    """Mirrored where the left quarter is brighter than the right one."""
    quarter = grey.shape[1] - grey.shape[1] * 3 // 4
    left, right = grey[:, :quarter].sum(dtype=np.int64), grey[:, -quarter:].sum(dtype=np.int64)
    return np.ascontiguousarray(grey[:, ::-1]) if left > right else grey
