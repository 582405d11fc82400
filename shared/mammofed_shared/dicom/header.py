"""What intake needs of a DICOM header, taken once into plain values, so that no pydicom object travels further.

Attribute numbers are those of DICOM PS3.6. A header lives only inside one worker: it holds identifiers.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

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
    OSError,
    RecursionError,
    struct.error,
    BytesLengthException,
    InvalidDicomError,
)
"""What pydicom is known to raise on hostile bytes; everything else is our bug and is reported as such."""

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_EXPLICIT = b"1.2.840.10008.1.2.1\0\0\0"


@dataclass(frozen=True, slots=True)
class LookupTable:
    """One item of a Modality or VOI LUT sequence (PS3.3 C.11.1.1, C.11.2.1.1)."""

    first_value: int
    bits: int
    entries: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ViewCode:
    """One item of the View Code Sequence (0054,0220), with the number of its modifiers."""

    code: str
    scheme: str
    num_modifiers: int


@dataclass(frozen=True, slots=True)
class Header:
    """The attributes that intake reads; a missing one is None, an empty string or an empty tuple."""

    transfer_syntax: str
    sop_class: str
    sop_instance: str
    study: str
    accession: str
    patient: str
    study_date: str
    modality: str
    intent: str
    manufacturer: str
    series_description: str
    image_type: tuple[str, ...]
    contrast_agent: str
    burned_in: str
    quality_control: str
    implant: str
    lossy: str
    image_laterality: str
    laterality: str
    frame_lateralities: tuple[str, ...]
    view_position: str
    view_codes: tuple[ViewCode, ...]
    patient_orientation: tuple[str, ...]
    spacing_mm: float | None
    frames: int | None
    samples: int | None
    photometric: str
    rows: int | None
    columns: int | None
    bits_allocated: int | None
    bits_stored: int | None
    high_bit: int | None
    signed: int | None
    padding: int | None
    padding_limit: int | None
    slope: float | None
    intercept: float | None
    modality_lut: LookupTable | None
    window_centers: tuple[float, ...]
    window_widths: tuple[float, ...]
    voi_function: str
    voi_lut: LookupTable | None


def read_header(file: BinaryIO) -> tuple[Header, BinaryIO]:
    """Read all attributes before the pixels.

    Returns:
        the header, and the file standing at its pixel data element, or at its end where it has none. A
        deflated file comes back inflated.

    Raises:
        UnreadableImage: not DICOM, or a header that cannot be parsed.
    """
    file = _inflated(file)
    with warnings.catch_warnings():
        # pydicom warns of odd values and quotes them; a quoted value may be a name.
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(file, stop_before_pixels=True)
        except PARSING_ERRORS as error:
            raise UnreadableImage(Reason.NOT_DICOM, f"pydicom: {type(error).__name__}") from error
        if not dataset.file_meta.get("TransferSyntaxUID"):
            raise UnreadableImage(Reason.NOT_DICOM, "the file meta information names no transfer syntax")
        try:
            return _take(dataset), file
        except PARSING_ERRORS as error:
            raise UnreadableImage(Reason.BAD_HEADER, f"pydicom: {type(error).__name__}") from error


def _inflated(file: BinaryIO) -> BinaryIO:
    """The file from its start; a deflated one (PS3.5 A.5) as the explicit little endian file that it packs."""
    file.seek(0)
    start = file.read(144)
    if start[128:132] != b"DICM":
        raise UnreadableImage(Reason.NOT_DICOM, "the file has no DICM mark at byte 128")
    # File meta information (PS3.10 7.1) begins with its own length: (0002,0000) UL, 4 bytes.
    meta = file.read(int.from_bytes(start[140:144], "little")) if start[132:136] == b"\2\0\0\0" else b""
    if _DEFLATED not in meta:
        file.seek(0)
        return file
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = inflater.decompress(file.read())
    except zlib.error as error:
        raise UnreadableImage(Reason.TRUNCATED, "the deflated data set is damaged") from error
    if not inflater.eof:
        raise UnreadableImage(Reason.TRUNCATED, "the deflated data set ends early")
    return io.BytesIO(start + meta.replace(_DEFLATED, _EXPLICIT) + body)


def _take(dataset: Dataset) -> Header:
    return Header(
        transfer_syntax=str(dataset.file_meta.get("TransferSyntaxUID", "") or ""),
        sop_class=_text(dataset, "SOPClassUID"),
        sop_instance=_text(dataset, "SOPInstanceUID"),
        study=_text(dataset, "StudyInstanceUID"),
        accession=_text(dataset, "AccessionNumber"),
        patient=_text(dataset, "PatientID"),
        study_date=_text(dataset, "StudyDate"),
        modality=_text(dataset, "Modality").upper(),
        intent=_text(dataset, "PresentationIntentType").upper(),
        manufacturer=_text(dataset, "Manufacturer"),
        series_description=_text(dataset, "SeriesDescription"),
        image_type=tuple(text.upper() for text in _texts(dataset, "ImageType")),
        contrast_agent=_text(dataset, "ContrastBolusAgent"),
        burned_in=_text(dataset, "BurnedInAnnotation").upper(),
        quality_control=_text(dataset, "QualityControlImage").upper(),
        implant=_text(dataset, "BreastImplantPresent").upper(),
        lossy=_text(dataset, "LossyImageCompression"),
        image_laterality=_text(dataset, "ImageLaterality").upper(),
        laterality=_text(dataset, "Laterality").upper(),
        frame_lateralities=tuple(_frame_lateralities(dataset)),
        view_position=_text(dataset, "ViewPosition").upper(),
        view_codes=tuple(_view_codes(dataset)),
        patient_orientation=tuple(text.upper() for text in _texts(dataset, "PatientOrientation")),
        spacing_mm=_row_spacing(dataset),
        frames=_integer(dataset, "NumberOfFrames"),
        samples=_integer(dataset, "SamplesPerPixel"),
        photometric=_text(dataset, "PhotometricInterpretation").upper(),
        rows=_integer(dataset, "Rows"),
        columns=_integer(dataset, "Columns"),
        bits_allocated=_integer(dataset, "BitsAllocated"),
        bits_stored=_integer(dataset, "BitsStored"),
        high_bit=_integer(dataset, "HighBit"),
        signed=_integer(dataset, "PixelRepresentation"),
        padding=_integer(dataset, "PixelPaddingValue"),
        padding_limit=_integer(dataset, "PixelPaddingRangeLimit"),
        slope=_number(dataset, "RescaleSlope"),
        intercept=_number(dataset, "RescaleIntercept"),
        modality_lut=_table(dataset, "ModalityLUTSequence"),
        window_centers=_numbers(dataset, "WindowCenter"),
        window_widths=_numbers(dataset, "WindowWidth"),
        voi_function=_text(dataset, "VOILUTFunction").upper(),
        voi_lut=_table(dataset, "VOILUTSequence"),
    )


def _texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    value = dataset.get(keyword)
    if value is None:
        return ()
    values = value if isinstance(value, list | tuple | pydicom.multival.MultiValue) else [value]
    return tuple(str(item).strip().strip("\0") for item in values)


def _text(dataset: Dataset, keyword: str) -> str:
    return "\\".join(_texts(dataset, keyword))


def _numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    return tuple(float(text) for text in _texts(dataset, keyword) if text)


def _number(dataset: Dataset, keyword: str) -> float | None:
    return next(iter(_numbers(dataset, keyword)), None)


def _integer(dataset: Dataset, keyword: str) -> int | None:
    number = _number(dataset, keyword)
    return None if number is None else int(number)


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    value: Any = dataset.get(keyword)
    return list(value) if isinstance(value, pydicom.sequence.Sequence) else []


def _row_spacing(dataset: Dataset) -> float | None:
    """Distance of rows at the detector (0018,1164), or as calibrated (0028,0030); None where neither is positive."""
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):
        spacing = _number(dataset, keyword)
        if spacing is not None and spacing > 0:
            return spacing
    return None


def _frame_lateralities(dataset: Dataset) -> Iterator[str]:
    """Frame Laterality (0020,9072) of enhanced objects, from the shared and the per-frame functional groups."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in _items(dataset, groups):
            for anatomy in _items(group, "FrameAnatomySequence"):
                yield _text(anatomy, "FrameLaterality").upper()


def _view_codes(dataset: Dataset) -> Iterator[ViewCode]:
    for item in _items(dataset, "ViewCodeSequence"):
        modifiers = len(_items(item, "ViewModifierCodeSequence"))
        yield ViewCode(_text(item, "CodeValue"), _text(item, "CodingSchemeDesignator").upper(), modifiers)


def _table(dataset: Dataset, keyword: str) -> LookupTable | None:
    """First table of a sequence; a descriptor of 0 entries means 65,536 (PS3.3 C.11.1.1.1)."""
    for item in _items(dataset, keyword):
        descriptor = [int(number) for number in _numbers(item, "LUTDescriptor")]
        data: Any = item.get("LUTData")
        if len(descriptor) != 3 or data is None:
            raise ValueError("a lookup table without descriptor or data")
        num_entries = descriptor[0] or 65536
        if isinstance(data, bytes):
            data = struct.unpack(f"<{len(data) // 2}H", data[: len(data) // 2 * 2])
        entries = tuple(int(entry) for entry in data)
        if len(entries) < num_entries:
            raise ValueError("a lookup table shorter than its descriptor says")
        return LookupTable(descriptor[1], descriptor[2], entries[:num_entries])
    return None
