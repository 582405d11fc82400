"""The pixel data element, checked before any decoder sees it: container, code stream's kind and size.

dicomsdl trusts sizes and ends the process where they lie (docs/data.md), so nothing reaches it that was not
checked here. Sources: PS3.5 A.4 (encapsulation) and G (RLE); ITU-T T.81 B.2 (JPEG), T.87 C (JPEG-LS), T.800 A
(JPEG 2000).
"""

import io
import struct
import sys
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.dicom.data_set import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, UNDEFINED_LENGTH
from mammofed_shared.dicom.header import Header
from mammofed_shared.dicom.reasons import Reason
from mammofed_shared.errors import UnreadableImage

NATIVE = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG})
JPEG = frozenset({f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81)})
JPEG_LOSSLESS = frozenset({f"1.2.840.10008.1.2.4.{n}" for n in (57, 70)})
JPEG_2000 = frozenset({f"1.2.840.10008.1.2.4.{n}" for n in (90, 91)})
HTJ2K = frozenset({f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203)})
RLE = "1.2.840.10008.1.2.5"
LOSSY = frozenset({f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 81, 91, 203)})
SUPPORTED = NATIVE | JPEG | JPEG_2000 | HTJ2K | {RLE}

_MOST_PIXELS = 1 << 27
"""Four times the largest mammogram, digitised film. A short code stream may claim more, and a decoder allocate it."""
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


@dataclass(frozen=True, slots=True)
class Shape:
    """Size and pixel format of an image, checked to be possible."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    signed: bool

    @property
    def num_bytes(self) -> int:
        """Bytes of the decoded image."""
        return self.rows * self.columns * self.bits_allocated // 8


def checked_shape(header: Header) -> Shape:
    """Size and format of the image as the header says them.

    Raises:
        UnreadableImage: an attribute is missing, or they contradict each other (PS3.5 8.1.1, PS3.3 C.7.6.3).
    """
    required: dict[Reason, object] = {
        Reason.MISSING_ROWS: header.rows,
        Reason.MISSING_COLUMNS: header.columns,
        Reason.MISSING_BITS_ALLOCATED: header.bits_allocated,
        Reason.MISSING_BITS_STORED: header.bits_stored,
        Reason.MISSING_PIXEL_REPRESENTATION: header.signed,
        Reason.MISSING_PHOTOMETRIC_INTERPRETATION: header.photometric or None,
    }
    for reason, value in required.items():
        if value is None:
            raise UnreadableImage(reason)
    if header.photometric not in ("MONOCHROME1", "MONOCHROME2") or header.samples not in (None, 1):
        raise UnreadableImage(Reason.NOT_GREYSCALE, f"samples per pixel {header.samples}")
    rows, columns = header.rows or 0, header.columns or 0
    allocated, stored = header.bits_allocated or 0, header.bits_stored or 0
    if rows <= 0 or columns <= 0 or rows * columns > _MOST_PIXELS:
        raise UnreadableImage(Reason.SIZE_MISMATCH, f"{rows} rows, {columns} columns")
    high = header.high_bit if header.high_bit is not None else stored - 1
    if allocated not in (8, 16) or not 1 <= stored <= allocated or high != stored - 1 or header.signed not in (0, 1):
        raise UnreadableImage(Reason.BAD_BITS, f"allocated {allocated}, stored {stored}, high bit {high}")
    return Shape(rows, columns, allocated, stored, header.signed == 1)


def read_native(file: BinaryIO, header: Header, shape: Shape) -> tuple[NDArray[np.uint8], bool]:
    """The bytes of an uncompressed image, and whether they are 8-bit pixels in big endian words (PS3.5 8.1.2)."""
    vr, length = _element(file, header.transfer_syntax)
    if length == UNDEFINED_LENGTH:
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "compressed pixels under an uncompressed transfer syntax")
    # The size is compared before anything is read: 65,535 x 65,535 must not cost 8 GB. One byte of padding is
    # allowed.
    if not shape.num_bytes <= length <= shape.num_bytes + 1:
        raise UnreadableImage(Reason.SIZE_MISMATCH, f"{shape.num_bytes} bytes expected, {length} declared")
    data = _memory(shape.num_bytes)
    num_read = file.readinto(data)  # type: ignore[attr-defined]  # BinaryIO knows only half of what files can
    if num_read < shape.num_bytes:
        raise UnreadableImage(Reason.TRUNCATED, f"{shape.num_bytes} bytes of pixels expected, {num_read} found")
    is_swapped = header.transfer_syntax == EXPLICIT_BIG and shape.bits_allocated == 8 and vr == b"OW"
    return data, is_swapped


_spare = np.empty(0, np.uint8)


def _memory(num_bytes: int) -> NDArray[np.uint8]:
    """Memory for an image: the last one's, unless somebody still holds a view of that.

    Fresh memory costs as much as reading the file into it, since the kernel clears it page by page.
    """
    global _spare
    view = _spare[:num_bytes]
    # The module, this view and getrefcount itself hold it; whoever else has a part of it is a fourth.
    if len(view) < num_bytes or sys.getrefcount(_spare) > 3:
        _spare = np.empty(num_bytes, np.uint8)
        view = _spare[:]
    return view


def read_codestream(file: BinaryIO, header: Header, shape: Shape) -> tuple[bytes, int]:
    """The code stream of a compressed single-frame image, its own header checked, and the bits of its samples."""
    _, length = _element(file, header.transfer_syntax)
    if length != UNDEFINED_LENGTH:
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "plain pixels under a compressed transfer syntax")
    stream = _joined_fragments(file)
    if header.transfer_syntax == RLE:
        return stream, shape.bits_allocated
    check = _check_jpeg if header.transfer_syntax in JPEG else _check_jpeg_2000
    return stream, check(stream, shape)


def _element(file: BinaryIO, transfer_syntax: str) -> tuple[bytes, int]:
    """Value representation and length of the pixel data element, where the header's reader has stopped."""
    order = ">" if transfer_syntax == EXPLICIT_BIG else "<"
    start = file.read(8)
    if len(start) < 8 or struct.unpack(f"{order}HH", start[:4]) != (0x7FE0, 0x0010):
        raise UnreadableImage(Reason.MISSING_PIXEL_DATA)
    if transfer_syntax == IMPLICIT_LITTLE:
        return b"", int.from_bytes(start[4:8], "little")
    length = file.read(4)
    if len(length) < 4:
        raise UnreadableImage(Reason.TRUNCATED, "the file ends in the head of the pixel data")
    return start[4:6], int(struct.unpack(f"{order}L", length)[0])


def _joined_fragments(file: BinaryIO) -> bytes:
    """The fragments after the first item, which is the offset table: one frame does not need it."""
    left = _bytes_left(file)
    fragments: list[bytes] = []
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise UnreadableImage(Reason.TRUNCATED, "the compressed pixel data has no end mark")
        if head[:4] == _END:
            break
        if head[:4] != _ITEM:
            raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "a fragment does not begin with an item mark")
        length = int.from_bytes(head[4:], "little")
        left -= 8 + length
        if left < 0:
            raise UnreadableImage(Reason.TRUNCATED, "a fragment is longer than the file")
        fragments.append(file.read(length))
    stream = b"".join(fragments[1:])
    if not stream:
        raise UnreadableImage(Reason.MISSING_PIXEL_DATA, "the compressed pixel data is empty")
    return stream


def _bytes_left(file: BinaryIO) -> int:
    at = file.tell()
    end = file.seek(0, io.SEEK_END)
    file.seek(at)
    return end - at


def rle_segments(stream: bytes, shape: Shape) -> list[bytes]:
    """The segments of an RLE stream, whose number and offsets stand in its first 64 bytes (PS3.5 G.5)."""
    num_segments = int.from_bytes(stream[:4], "little")
    if len(stream) < 64 or num_segments != shape.bits_allocated // 8:
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, f"{num_segments} RLE segments")
    offsets = struct.unpack(f"<{num_segments}L", stream[4 : 4 + 4 * num_segments])
    if offsets[0] != 64 or list(offsets) != sorted(set(offsets)) or offsets[-1] >= len(stream):
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "RLE segments are not in order")
    return [stream[start:end] for start, end in zip(offsets, (*offsets[1:], len(stream)), strict=True)]


def _check_jpeg(stream: bytes, shape: Shape) -> int:
    """Walk the marker segments to the frame header, whose size must be the image's."""
    if stream[:2] != b"\xff\xd8":
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "no JPEG start of image")
    _check_end(stream)
    at = 2
    while at + 4 <= len(stream):
        if stream[at] != 0xFF:
            break
        marker = stream[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        # SOF0 to SOF15 without DHT, JPG and DAC; SOF55 is JPEG-LS.
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            if at + 10 > len(stream):
                break
            precision, rows, columns, components = struct.unpack(">BHHB", stream[at + 4 : at + 10])
            return _compared(shape, rows, columns, components, precision)
        if marker == 0xDA:  # the scan begins, and no frame header came before it
            break
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "no JPEG frame header")


def _check_jpeg_2000(stream: bytes, shape: Shape) -> int:
    """Check the SIZ marker, which follows the start of the code stream at once (T.800 A.5.1)."""
    if stream[:4] != b"\xff\x4f\xff\x51" or len(stream) < 45:
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "no JPEG 2000 start of code stream")
    _check_end(stream)
    right, bottom, left, top = struct.unpack(">LLLL", stream[8:24])
    components, depth, column_step, row_step = struct.unpack(">HBBB", stream[40:45])
    if (column_step, row_step) != (1, 1):  # the decoder would return fewer pixels than the image has
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "a subsampled image")
    return _compared(shape, bottom - top, right - left, components, (depth & 0x7F) + 1)


def _check_end(stream: bytes) -> None:
    """Ask for the end mark, after which only padding may stand: a cut stream decodes to plausible garbage."""
    if not stream[-64:].rstrip(b"\0").endswith(b"\xff\xd9"):
        raise UnreadableImage(Reason.CORRUPT_CODESTREAM, "the code stream has no end mark")


def _compared(shape: Shape, rows: int, columns: int, components: int, precision: int) -> int:
    """The precision, where the code stream's own header is that of the image."""
    if (rows, columns) != (shape.rows, shape.columns):
        raise UnreadableImage(
            Reason.SIZE_MISMATCH, f"header {shape.rows} x {shape.columns}, code stream {rows} x {columns}"
        )
    if components != 1:
        raise UnreadableImage(Reason.NOT_GREYSCALE, f"{components} components in the code stream")
    if precision > shape.bits_allocated:
        raise UnreadableImage(Reason.BAD_BITS, f"{precision} bits in the code stream, {shape.bits_allocated} allocated")
    return precision
