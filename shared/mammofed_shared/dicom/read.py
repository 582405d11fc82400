"""From a checked file to the stored values, exactly as the modality wrote them.

Uncompressed pixels are taken as they stand. A code stream goes to the fastest exact decoder that is safe with
it: to dicomsdl, wrapped in a minimal object of our own making, so that the decoder never sees the hospital's
header; lossless JPEG to libjpeg-turbo (71 ms for 4096 × 3328 pixels, dicomsdl 98); RLE to pylibjpeg-rle, since
dicomsdl writes past the image where a run is too long; HTJ2K, which dicomsdl does not know, to pydicom with
openjpeg. Call this in a worker process only (``pool``): a decoder may still die.
"""

import io
import struct
from dataclasses import replace
from typing import Any, BinaryIO

import cv2
import dicomsdl
import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from rle.utils import decode_segment  # type: ignore[attr-defined]  # public, but not in its __all__

from mammofed_shared.dicom.data_set import EXPLICIT_BIG, PARSING_ERRORS
from mammofed_shared.dicom.header import Header
from mammofed_shared.dicom.pixel_data import (
    HTJ2K,
    JPEG_LOSSLESS,
    LOSSY,
    NATIVE,
    RLE,
    SUPPORTED,
    Shape,
    checked_shape,
    read_codestream,
    read_native,
    rle_segments,
)
from mammofed_shared.dicom.reasons import Reason
from mammofed_shared.errors import UnreadableImage

Codes = NDArray[np.uint8] | NDArray[np.uint16]
"""(rows, columns): the stored bits of each pixel, unused bits cleared; a signed value in two's complement."""

dicomsdl.set_loglevel(dicomsdl.LogLevel.DISABLE)  # it would log to the console


def decode(header: Header, file: BinaryIO) -> tuple[Codes, Shape]:
    """Decode the image at which ``read_header`` has left the file.

    Raises:
        UnreadableImage: an error of ``reasons``; the image cannot be trusted.
    """
    if header.transfer_syntax not in SUPPORTED:
        raise UnreadableImage(Reason.UNSUPPORTED_TRANSFER_SYNTAX)
    shape = checked_shape(header)
    read = _native if header.transfer_syntax in NATIVE else _compressed
    codes = read(header, file, shape)
    if codes.shape != (shape.rows, shape.columns):
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "the decoder returned another size")
    return _within(codes, shape, is_lossy=header.transfer_syntax in LOSSY), shape


def stored_values(codes: NDArray[np.unsignedinteger], shape: Shape) -> NDArray[np.int32]:
    """The stored values as numbers: two's complement of ``bits_stored`` bits where they are signed (PS3.5 8.1.1)."""
    values = codes.astype(np.int32)
    if shape.signed:
        values -= (values >> (shape.bits_stored - 1)) << shape.bits_stored
    return values


def _native(header: Header, file: BinaryIO, shape: Shape) -> Codes:
    data, is_swapped = read_native(file, header, shape)
    if is_swapped:
        data = np.append(data, np.zeros(len(data) % 2, np.uint8)).reshape(-1, 2)[:, ::-1].reshape(-1)[: len(data)]
    if shape.bits_allocated == 8:
        return data.reshape(shape.rows, shape.columns)
    order = ">u2" if header.transfer_syntax == EXPLICIT_BIG else "<u2"
    return data.view(order).reshape(shape.rows, shape.columns).astype(np.uint16, copy=False)


def _compressed(header: Header, file: BinaryIO, shape: Shape) -> Codes:
    stream, precision = read_codestream(file, header, shape)
    if header.transfer_syntax == RLE:
        return _by_pylibjpeg_rle(stream, shape)
    if header.transfer_syntax in JPEG_LOSSLESS:
        values = _by_libjpeg_turbo(stream)
    else:
        # Samples of 8 bits in an image of 16 are legal; told of 16, dicomsdl returns every second byte as noise.
        allocated = 8 if precision <= 8 else 16
        of_stream = replace(shape, bits_allocated=allocated, bits_stored=min(allocated, shape.bits_stored))
        decoder = _by_pydicom if header.transfer_syntax in HTJ2K else _by_dicomsdl
        values = decoder(minimal_object(header.transfer_syntax, of_stream, stream))
    if values.dtype.kind not in "iu" or values.ndim != 2 or values.itemsize * 8 > shape.bits_allocated:
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "the decoder returned another kind of image")
    of_image = values.astype(f"{values.dtype.kind}{shape.bits_allocated // 8}", copy=False)
    return np.ascontiguousarray(of_image).view(f"u{shape.bits_allocated // 8}")


def _by_pylibjpeg_rle(stream: bytes, shape: Shape) -> Codes:
    """Each segment holds one byte of all pixels, the most significant ones first (PS3.5 G.2)."""
    num_pixels = shape.rows * shape.columns
    planes = []
    for segment in rle_segments(stream, shape):
        try:
            plane = np.frombuffer(decode_segment(segment), np.uint8)
        except ValueError as error:
            raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "pylibjpeg-rle cannot decode it") from error
        if len(plane) != num_pixels:
            raise UnreadableImage(Reason.CORRUPT_CODESTREAM, f"{len(plane)} pixels in an RLE segment of {num_pixels}")
        planes.append(plane.reshape(shape.rows, shape.columns))
    if len(planes) == 1:
        return planes[0]
    return np.asarray(cv2.merge(planes[::-1]), np.uint8).view("<u2")[..., 0]


def _by_libjpeg_turbo(stream: bytes) -> NDArray[Any]:
    try:
        values = imagecodecs.jpeg8_decode(stream)
    except (RuntimeError, ValueError) as error:
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "libjpeg-turbo cannot decode it") from error
    return np.asarray(values)


def _by_dicomsdl(file: bytes) -> NDArray[Any]:
    try:
        values = dicomsdl.open_memory(file, copy_data=False).pixelData(0, storedvalue=True)
    except (dicomsdl.DicomException, RuntimeError, ValueError) as error:
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "dicomsdl cannot decode it") from error
    return np.asarray(values)


def _by_pydicom(file: bytes) -> NDArray[Any]:
    try:
        values = pydicom.dcmread(io.BytesIO(file)).pixel_array
    except (RuntimeError, *PARSING_ERRORS) as error:
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "openjpeg cannot decode it") from error
    return np.asarray(values)


def _within(codes: Codes, shape: Shape, *, is_lossy: bool) -> Codes:
    """Nothing above ``bits_stored``: overlays and rubbish are cleared, what lossy coding has overshot is cut off."""
    mask = codes.dtype.type((1 << shape.bits_stored) - 1)
    if shape.bits_stored == shape.bits_allocated or cv2.minMaxLoc(codes)[1] <= mask:
        return codes
    return np.minimum(codes, mask) if is_lossy and not shape.signed else codes & mask


def minimal_object(transfer_syntax: str, shape: Shape, stream: bytes) -> bytes:
    """A DICOM file with nothing but the image: file meta information, the image pixel module, one fragment."""

    def element(group: int, number: int, vr: str, value: bytes) -> bytes:
        return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value

    def short(number: int, value: int) -> bytes:
        return element(0x0028, number, "US", struct.pack("<H", value))

    uid = transfer_syntax.encode()
    meta = element(0x0002, 0x0010, "UI", uid + b"\0" * (len(uid) % 2))
    fragment = stream + b"\0" * (len(stream) % 2)
    return b"".join(
        (
            b"\0" * 128 + b"DICM",
            element(0x0002, 0x0000, "UL", struct.pack("<L", len(meta))),
            meta,
            short(0x0002, 1),
            element(0x0028, 0x0004, "CS", b"MONOCHROME2 "),
            short(0x0010, shape.rows),
            short(0x0011, shape.columns),
            short(0x0100, shape.bits_allocated),
            short(0x0101, shape.bits_stored),
            short(0x0102, shape.bits_stored - 1),
            short(0x0103, int(shape.signed)),
            struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF),
            struct.pack("<HHL", 0xFFFE, 0xE000, 0),
            struct.pack("<HHL", 0xFFFE, 0xE000, len(fragment)) + fragment,
            struct.pack("<HHL", 0xFFFE, 0xE0DD, 0),
        )
    )
