"""From the bytes of a file to its DICOM data set before the pixels: preamble, file meta information, deflate.

pydicom parses, out of memory and told what it may take for granted: a length in the file that is a lie then costs
nothing, and a file that is encoded otherwise than it says is refused where pydicom would guess. Sources: PS3.10 7.1
(file), PS3.5 7.1 (elements), A.5 (deflate).
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from mammofed_shared.dicom.reasons import Reason
from mammofed_shared.errors import UnreadableImage

PARSING_ERRORS = (
    ValueError,  # includes UnicodeError
    TypeError,
    LookupError,
    AttributeError,
    NotImplementedError,
    ArithmeticError,
    EOFError,
    OSError,  # pydicom's word for a sequence that ends early; no file is touched while it parses
    RecursionError,
    struct.error,
    BytesLengthException,
    InvalidDicomError,
)
"""What pydicom is known to raise on hostile bytes; everything else is our bug and is reported as such."""

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

UNDEFINED_LENGTH = 0xFFFFFFFF
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float, double and integer pixel data."""
_PREFIXES = (1 << 18, 1 << 23, -1)
"""The data set is looked for in so many bytes; most are shorter than the first, and a file may have gigabytes."""
_MOST_INFLATED = 1 << 29
"""Bytes that a deflated file may unpack to; what lies behind is not read. No single image is as large."""
_IMAGES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{number}"
    for number in ("1", "1.1", "1.1.1", "1.2", "1.2.1", "3.1", "6.1", "7", "7.1", "7.2", "7.3", "13.1.3")
)
"""Radiography, ultrasound and secondary capture are images: one without pixels is a part of a file."""
_MARK = b"DICM"
_META_START = b"\2\0\0\0UL\4\0"
"""(0002,0000), with which every file meta information begins."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """The attributes before the pixels, and ``file`` standing at the pixel data element, or at its end without one.

    ``transfer_syntax`` is that of ``file``: of what a deflated file packs.
    """

    transfer_syntax: str
    attributes: Dataset
    file: BinaryIO


def read_data_set(file: BinaryIO, tags: list[int]) -> DataSet:
    """Read some attributes of a file, whose other ones are passed over.

    A deflated file comes back inflated. Archives older than PS3.10 left the preamble out: such a file is read, but one
    without file meta information is refused, since its encoding would be a guess.

    Raises:
        UnreadableImage: not DICOM, cut before its pixels, or a data set that cannot be parsed.
    """
    with warnings.catch_warnings():
        # pydicom warns of odd values and quotes them; a quoted value may be a name.
        warnings.simplefilter("ignore")
        syntax, sop_class, start = _file_meta(file)
        if syntax == DEFLATED:
            file.seek(start)
            file, start, syntax = io.BytesIO(_inflated(file.read())), 0, EXPLICIT_LITTLE
        for size in _PREFIXES:
            file.seek(0)
            prefix = file.read(size)
            file.seek(0, io.SEEK_END)
            parsed = _parsed(prefix, start, syntax, tags, is_whole=file.tell() <= len(prefix))
            if parsed is not None:
                attributes, at, has_pixels = parsed
                if sop_class in _IMAGES and not has_pixels:
                    raise UnreadableImage(Reason.MISSING_PIXEL_DATA)
                file.seek(at)
                return DataSet(syntax, attributes, file)
    raise AssertionError("a whole file was either parsed or refused")


def _file_meta(file: BinaryIO) -> tuple[str, str, int]:
    """Transfer syntax, class of the object, and the byte at which its data set begins."""
    file.seek(0)
    prefix = file.read(_PREFIXES[0])
    start = 132 if prefix[128:132] == _MARK else 0
    if not start and not prefix.startswith(_META_START):
        raise UnreadableImage(Reason.NOT_DICOM, "the file has no DICM mark at byte 128")
    opened = io.BytesIO(prefix)
    opened.seek(start)
    try:
        meta = read_dataset(opened, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
        syntax, sop_class = (
            str(meta.get(keyword) or "") for keyword in ("TransferSyntaxUID", "MediaStorageSOPClassUID")
        )
    except PARSING_ERRORS as error:
        raise UnreadableImage(Reason.NOT_DICOM, f"pydicom: {type(error).__name__}") from error
    if not syntax:
        raise UnreadableImage(Reason.NOT_DICOM, "the file meta information names no transfer syntax")
    return syntax, sop_class, opened.tell()


def _inflated(packed: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        unpacked = inflater.decompress(packed, _MOST_INFLATED)
    except zlib.error as error:
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "the deflated data set is damaged") from error
    if not inflater.eof and len(unpacked) < _MOST_INFLATED:
        raise UnreadableImage(Reason.TRUNCATED, "the deflated data set ends early")
    return unpacked


def _parsed(
    prefix: bytes, start: int, syntax: str, tags: list[int], *, is_whole: bool
) -> tuple[Dataset, int, bool] | None:
    """The attributes, where they end, and whether the pixels follow; None where more of the file has to be seen."""
    opened = io.BytesIO(prefix)
    opened.seek(start)
    end, has_pixels = start, False

    def is_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal end, has_pixels
        end = 0 if length == UNDEFINED_LENGTH else opened.tell() + length
        has_pixels = int(tag) in _PIXELS
        return has_pixels

    is_implicit, is_little = syntax == IMPLICIT_LITTLE, syntax != EXPLICIT_BIG
    try:
        attributes = read_dataset(opened, is_implicit, is_little, stop_when=is_pixels, specific_tags=[*tags])
    except PARSING_ERRORS as error:
        if not is_whole:
            return None
        raise UnreadableImage(Reason.BAD_HEADER, f"pydicom: {type(error).__name__}") from error
    if not has_pixels and not is_whole:
        return None
    if attributes.original_encoding[0] != is_implicit:
        raise UnreadableImage(Reason.BAD_HEADER, "the data set is not encoded as its transfer syntax says")
    if not has_pixels and _is_cut(prefix, start, end):
        raise UnreadableImage(Reason.TRUNCATED, "the file ends within its header")
    return attributes, opened.tell(), has_pixels


def _is_cut(file: bytes, start: int, end: int) -> bool:
    """Whether a file without pixels ends inside an element; ``end`` of its last one, 0 for an undefined length."""
    if not end:  # a sequence, whose end mark (FFFE,E0DD) must then be the last 8 bytes
        return file[-8:-4] not in (b"\xfe\xff\xdd\xe0", b"\xff\xfe\xe0\xdd")
    rest = file[end:]
    return end > len(file) or end == start or (len(rest) < 8 and any(rest))
