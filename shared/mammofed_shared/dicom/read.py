"""From a checked file to the stored values, exactly as the modality wrote them.

Uncompressed pixels are taken as they stand. A code stream goes to dicomsdl, the fastest exact decoder,
wrapped in a minimal object of our own making: the decoder never sees the hospital's header. HTJ2K, which
dicomsdl does not know, goes to pydicom with openjpeg. Call this in a worker process only (``pool``): a
decoder may still die.
"""

import io
import struct
from typing import BinaryIO

import dicomsdl
import numpy as np
import pydicom
from numpy.typing import NDArray

from mammofed_shared.dicom.header import PARSING_ERRORS, Header
from mammofed_shared.dicom.pixel_data import (
    EXPLICIT_BIG,
    HTJ2K,
    NATIVE,
    SUPPORTED,
    Shape,
    checked_shape,
    read_codestream,
    read_native,
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
    if header.transfer_syntax in NATIVE:
        codes = _native(header, file, shape)
    else:
        stream = read_codestream(file, header, shape)
        decoder = _by_pydicom if header.transfer_syntax in HTJ2K else _by_dicomsdl
        codes = decoder(minimal_object(header.transfer_syntax, shape, stream))
    if codes.shape != (shape.rows, shape.columns) or codes.itemsize * 8 != shape.bits_allocated:
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "the decoder returned another size")
    return _masked(codes, shape), shape


def stored_values(codes: NDArray[np.unsignedinteger], shape: Shape) -> NDArray[np.int32]:
    """The stored values as numbers: two's complement of ``bits_stored`` bits where they are signed (PS3.5 8.1.1)."""
    values = codes.astype(np.int32)
    if shape.signed:
        values -= (values >> (shape.bits_stored - 1)) << shape.bits_stored
    return values


def _native(header: Header, file: BinaryIO, shape: Shape) -> Codes:
    data, is_swapped = read_native(file, header, shape)
    if shape.bits_allocated == 8:
        codes = np.frombuffer(data, np.uint8)
        if is_swapped:
            even = np.frombuffer(data + b"\0" * (len(data) % 2), np.uint8)
            codes = even.reshape(-1, 2)[:, ::-1].reshape(-1)[: len(data)]
        return codes.reshape(shape.rows, shape.columns)
    order = ">u2" if header.transfer_syntax == EXPLICIT_BIG else "<u2"
    return np.frombuffer(data, order).reshape(shape.rows, shape.columns).astype(np.uint16, copy=False)


def _by_dicomsdl(file: bytes) -> Codes:
    try:
        values = dicomsdl.open_memory(file).pixelData(0, storedvalue=True)
    except (dicomsdl.DicomException, RuntimeError, ValueError) as error:
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "dicomsdl cannot decode it") from error
    return _unsigned(values)


def _by_pydicom(file: bytes) -> Codes:
    try:
        values = pydicom.dcmread(io.BytesIO(file)).pixel_array
    except (RuntimeError, *PARSING_ERRORS) as error:
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "openjpeg cannot decode it") from error
    return _unsigned(values)


def _unsigned(values: NDArray[np.generic]) -> Codes:
    if values.dtype.kind not in "iu" or values.ndim != 2:
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "the decoder returned another kind of image")
    return np.ascontiguousarray(values).view(f"u{values.itemsize}")


def _masked(codes: Codes, shape: Shape) -> Codes:
    """Clear the bits above ``bits_stored``, where overlays and rubbish may stand."""
    if shape.bits_stored == shape.bits_allocated:
        return codes
    mask = codes.dtype.type((1 << shape.bits_stored) - 1)
    return codes & mask if codes.max() > mask else codes


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
