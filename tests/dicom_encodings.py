"""DICOM files in every transfer syntax that the reader knows, and their bare elements, so that each can lie."""

import io
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.sequence import Sequence

from dicom_fixtures import breast_pixels, mammogram_dataset

IMPLICIT_LE, EXPLICIT_LE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED_LE, EXPLICIT_BE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
NATIVE = (IMPLICIT_LE, EXPLICIT_LE, DEFLATED_LE, EXPLICIT_BE)
RLE = "1.2.840.10008.1.2.5"
_JPEG = "1.2.840.10008.1.2.4."
JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1 = (_JPEG + n for n in ("50", "51", "57", "70"))
JPEG_LS, JPEG_LS_NEAR, J2K_LOSSLESS, J2K = (_JPEG + n for n in ("80", "81", "90", "91"))
HTJ2K_LOSSLESS, HTJ2K = _JPEG + "201", _JPEG + "203"
LOSSLESS = (*NATIVE, RLE, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1, JPEG_LS, J2K_LOSSLESS, HTJ2K_LOSSLESS)

Values = NDArray[np.integer[Any]]
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""Value representations whose length has four bytes (PS3.5 7.1.2)."""


def stored_ramp(bits: int, *, signed: bool = False, rows: int = 48, columns: int = 40) -> Values:
    """A breast with grain that reaches both ends of the range of ``bits``; of a signed one, the negative half too."""
    grain = np.random.default_rng(bits).integers(0, 1 << max(0, bits - 5), (rows, columns))
    values = breast_pixels(rows, columns, highest=(1 << bits) - 1).astype(np.int64)
    values = np.clip(np.where(values > 0, values + grain, 0), 0, (1 << bits) - 1)
    values[rows // 2, 0] = (1 << bits) - 1
    return values - (1 << (bits - 1)) if signed else values


def codestream(codes: NDArray[np.unsignedinteger[Any]], syntax: str, bits: int, predictor: int = 1) -> bytes:
    """The compressed image: ``codes`` are the stored bits as unsigned numbers of ``bits`` bits."""
    if syntax == RLE:
        rows, columns = codes.shape
        form = {
            "rows": rows,
            "columns": columns,
            "number_of_frames": 1,
            "samples_per_pixel": 1,
            "pixel_keyword": "PixelData",
        }
        form |= {"bits_allocated": codes.itemsize * 8, "bits_stored": bits, "pixel_representation": 0}
        form |= {"photometric_interpretation": "MONOCHROME2"}
        return RLELosslessEncoder.encode(codes.tobytes(), encoding_plugin="pydicom", **form)
    if syntax == JPEG_BASELINE:
        return bytes(imagecodecs.jpeg8_encode(codes, level=98))
    if syntax == JPEG_EXTENDED:
        return bytes(imagecodecs.jpeg8_encode(codes, level=98, bitspersample=12))
    if syntax in (JPEG_LOSSLESS, JPEG_LOSSLESS_SV1):
        return bytes(imagecodecs.jpeg8_encode(codes, lossless=True, predictor=predictor, bitspersample=bits))
    if syntax in (JPEG_LS, JPEG_LS_NEAR):
        return bytes(imagecodecs.jpegls_encode(codes, level=0 if syntax == JPEG_LS else 3))
    if syntax in (J2K_LOSSLESS, J2K):
        quality = {"reversible": True} if syntax == J2K_LOSSLESS else {"reversible": False, "level": 70}
        return bytes(imagecodecs.jpeg2k_encode(codes, codecformat="j2k", bitspersample=bits, **quality))
    return bytes(imagecodecs.htj2k_encode(codes, reversible=syntax == HTJ2K_LOSSLESS))


def dicom_file(
    values: Values | None = None,
    syntax: str = EXPLICIT_LE,
    bits: int = 12,
    *,
    stream: bytes | None = None,
    predictor: int = 1,
    fragments: int = 1,
    offsets: str = "basic",
    **changes: Any,
) -> bytes:
    """A left MLO mammogram; a negative value makes it signed.

    Args:
        stream: in place of the code stream of ``values``.
        offsets: ``basic``, ``extended`` or ``none``: which offset table stands before the fragments.
        changes: attributes by keyword, None removes one.
    """
    values = stored_ramp(bits) if values is None else values
    allocated = 8 if bits <= 8 else 16
    codes = (values & ((1 << bits) - 1)).astype(f"u{allocated // 8}")
    form: dict[str, Any] = {"BitsAllocated": allocated, "BitsStored": bits, "HighBit": bits - 1}
    form |= {"PixelRepresentation": int(values.min() < 0), "transfer_syntax": syntax}
    if syntax in NATIVE:
        order = ">" if syntax == EXPLICIT_BE else "<"
        form["PixelData"] = codes.astype(f"{order}u{allocated // 8}").tobytes()
    else:
        stream = codestream(codes, syntax, bits, predictor) if stream is None else stream
        form |= _encapsulated(stream, fragments, offsets)
    dataset = mammogram_dataset(codes.astype(np.uint16), **(form | changes))
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OB" if syntax not in NATIVE or allocated == 8 else "OW"
        dataset["PixelData"].is_undefined_length = syntax not in NATIVE
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _encapsulated(stream: bytes, fragments: int, offsets: str) -> dict[str, Any]:
    if offsets == "extended":
        data, table, lengths = encapsulate_extended([stream])
        return {"PixelData": data, "ExtendedOffsetTable": table, "ExtendedOffsetTableLengths": lengths}
    return {"PixelData": encapsulate([stream], fragments_per_frame=fragments, has_bot=offsets == "basic")}


@dataclass(frozen=True, slots=True)
class Element:
    """One element as it stands in a file; ``length`` is what it says of itself where that is a lie."""

    group: int
    number: int
    vr: bytes
    value: bytes
    length: int | None = None

    def written(self, *, is_implicit: bool = False) -> bytes:
        """Its bytes in little endian."""
        length = len(self.value) if self.length is None else self.length
        head = struct.pack("<HH", self.group, self.number)
        if is_implicit:
            return head + struct.pack("<L", length & 0xFFFFFFFF) + self.value
        if self.vr in _LONG:
            return head + self.vr + struct.pack("<HL", 0, length & 0xFFFFFFFF) + self.value
        return head + self.vr + struct.pack("<H", length & 0xFFFF) + self.value


def elements_of(file: bytes) -> tuple[bytes, list[Element]]:
    """What stands before the data set of an explicit little endian file, and its elements; sequences as raw bytes."""
    at = 144 + int.from_bytes(file[140:144], "little")
    start, elements = file[:at], []
    while at < len(file):
        group, number, vr, length = struct.unpack("<HH2sH", file[at : at + 8])
        at += 8
        if vr in _LONG:
            length = int.from_bytes(file[at : at + 4], "little")
            at += 4
        if length == 0xFFFFFFFF:  # only the pixel data, which is last
            elements.append(Element(group, number, vr, file[at:], length))
            break
        elements.append(Element(group, number, vr, file[at : at + length]))
        at += length
    return start, elements


def file_of(start: bytes, elements: Iterable[Element], *, is_implicit: bool = False) -> bytes:
    """The reverse of ``elements_of``; with ``is_implicit`` the elements do not name their value representation."""
    return start + b"".join(element.written(is_implicit=is_implicit) for element in elements)


def items(**values: Any) -> Sequence:
    """A sequence of one item."""
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return Sequence([item])


def lookup_table(entries: int, *, bits: int = 16, first: int = 0) -> Sequence:
    """A rising table of a Modality or VOI LUT sequence."""
    table = np.linspace(0, (1 << bits) - 1, entries).astype("<u2")
    made = items(LUTDescriptor=[entries % 65536, first, bits], LUTData=table.tobytes())
    made[0]["LUTDescriptor"].VR, made[0]["LUTData"].VR = "US", "OW"
    return made


def view_code(code: str, scheme: str, modifier: str | None = None) -> Sequence:
    """A View Code Sequence."""
    coded = items(CodeValue=code, CodingSchemeDesignator=scheme, CodeMeaning="a view")
    if modifier is not None:
        coded[0].ViewModifierCodeSequence = items(CodeValue=modifier, CodingSchemeDesignator=scheme)
    return coded
