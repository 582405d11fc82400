"""What intake needs of a DICOM header, taken once into plain values, so that no pydicom object travels further.

Attribute numbers are those of DICOM PS3.6. A header lives only inside one worker: it holds identifiers.
"""

import math
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from mammofed_shared.dicom.data_set import PARSING_ERRORS, read_data_set
from mammofed_shared.dicom.reasons import Reason
from mammofed_shared.errors import UnreadableImage


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
    birth_date: str
    age: str
    modality: str
    intent: str
    manufacturer: str
    series_description: str
    study_description: str
    identity: tuple[str, ...]
    """Texts by which somebody could be known: names, numbers and addresses of patient, physicians and hospital."""
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
    spacing_mm: tuple[float, float] | None
    """Distance of rows and of columns."""
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
    """Read what intake needs of the attributes before the pixels.

    Returns:
        the header, and the file standing at its pixel data element, or at its end where it has none. A
        deflated file comes back inflated.

    Raises:
        UnreadableImage: not DICOM, or a header that is cut or cannot be parsed.
    """
    found = read_data_set(file, _TAGS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom converts at the first access, and warns as when it parses
        try:
            fields: dict[str, Any] = {
                field: read(found.attributes, keyword) for field, (keyword, read) in _FIELDS.items()
            }
            fields["identity"] = tuple(_identity(found.attributes))
            fields["frame_lateralities"] = tuple(_frame_lateralities(found.attributes))
            fields["spacing_mm"] = _spacing(found.attributes)
        except PARSING_ERRORS as error:
            raise UnreadableImage(Reason.BAD_HEADER, f"pydicom: {type(error).__name__}") from error
    return Header(transfer_syntax=found.transfer_syntax, **fields), found.file


def _texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    value = dataset.get(keyword)
    if value is None:
        return ()
    values = value if isinstance(value, list | tuple | pydicom.multival.MultiValue) else [value]
    return tuple(str(item).strip().strip("\0") for item in values)


def _text(dataset: Dataset, keyword: str) -> str:
    return "\\".join(_texts(dataset, keyword))


def _word(dataset: Dataset, keyword: str) -> str:
    return _text(dataset, keyword).upper()


def _words(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    return tuple(text.upper() for text in _texts(dataset, keyword))


def _numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    numbers = tuple(float(text) for text in _texts(dataset, keyword) if text)
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a number that is none")
    return numbers


def _number(dataset: Dataset, keyword: str) -> float | None:
    return next(iter(_numbers(dataset, keyword)), None)


def _short(dataset: Dataset, keyword: str) -> int | None:
    """A number of 16 bits; a longer one has slipped in from elsewhere, perhaps an identifier."""
    number = _number(dataset, keyword)
    if number is not None and not -32768 <= number <= 65535:
        raise ValueError("a number of more than 16 bits")
    return None if number is None else int(number)


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    value: Any = dataset.get(keyword)
    return list(value) if isinstance(value, pydicom.sequence.Sequence) else []


def _identity(dataset: Dataset) -> Iterator[str]:
    for keyword in _IDENTITY:
        yield from (text for text in _texts(dataset, keyword) if text)
    for item in _items(dataset, _OTHER_IDS):
        yield from (text for text in _texts(item, "PatientID") if text)


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Spacing at the detector (0018,1164), or as calibrated (0028,0030); None where neither is two positive numbers."""
    for keyword in _SPACINGS:
        numbers = _numbers(dataset, keyword)
        if len(numbers) == 2 and min(numbers) > 0:
            return numbers[0], numbers[1]
    return None


def _frame_lateralities(dataset: Dataset) -> Iterator[str]:
    """Frame Laterality (0020,9072) of enhanced objects, from the shared and the per-frame functional groups."""
    for groups in _FRAME_GROUPS:
        for group in _items(dataset, groups):
            for anatomy in _items(group, "FrameAnatomySequence"):
                yield _word(anatomy, "FrameLaterality")


def _view_codes(dataset: Dataset, keyword: str) -> tuple[ViewCode, ...]:
    return tuple(
        ViewCode(
            _text(item, "CodeValue"),
            _word(item, "CodingSchemeDesignator"),
            len(_items(item, "ViewModifierCodeSequence")),
        )
        for item in _items(dataset, keyword)
    )


def _table(dataset: Dataset, keyword: str) -> LookupTable | None:
    """First table of a sequence.

    A descriptor of 0 entries means 65,536 (PS3.3 C.11.1.1.1). Its numbers are signed where pixels are, but may have
    been written the other way.
    """
    for item in _items(dataset, keyword):
        descriptor = [int(number) for number in _numbers(item, "LUTDescriptor")]
        data: Any = item.get("LUTData")
        if len(descriptor) != 3 or data is None or not 1 <= descriptor[2] <= 16:
            raise ValueError("a lookup table without descriptor or data")
        num_entries, first = descriptor[0] & 0xFFFF or 65536, descriptor[1]
        if first > 32767 and _short(dataset, "PixelRepresentation") == 1:
            first -= 65536
        if isinstance(data, bytes):
            order = "<" if dataset.original_encoding[1] else ">"
            data = struct.unpack(f"{order}{len(data) // 2}H", data[: len(data) // 2 * 2])
        entries = tuple(int(entry) & 0xFFFF for entry in data)
        if len(entries) < num_entries:
            raise ValueError("a lookup table shorter than its descriptor says")
        return LookupTable(first, descriptor[2], entries[:num_entries])
    return None


_FIELDS: dict[str, tuple[str, Callable[[Dataset, str], Any]]] = {
    "sop_class": ("SOPClassUID", _text),
    "sop_instance": ("SOPInstanceUID", _text),
    "study": ("StudyInstanceUID", _text),
    "accession": ("AccessionNumber", _text),
    "patient": ("PatientID", _text),
    "study_date": ("StudyDate", _text),
    "birth_date": ("PatientBirthDate", _text),
    "age": ("PatientAge", _text),
    "modality": ("Modality", _word),
    "intent": ("PresentationIntentType", _word),
    "manufacturer": ("Manufacturer", _text),
    "series_description": ("SeriesDescription", _text),
    "study_description": ("StudyDescription", _text),
    "image_type": ("ImageType", _words),
    "contrast_agent": ("ContrastBolusAgent", _text),
    "burned_in": ("BurnedInAnnotation", _word),
    "quality_control": ("QualityControlImage", _word),
    "implant": ("BreastImplantPresent", _word),
    "lossy": ("LossyImageCompression", _text),
    "image_laterality": ("ImageLaterality", _word),
    "laterality": ("Laterality", _word),
    "view_position": ("ViewPosition", _word),
    "view_codes": ("ViewCodeSequence", _view_codes),
    "patient_orientation": ("PatientOrientation", _words),
    "frames": ("NumberOfFrames", _short),
    "samples": ("SamplesPerPixel", _short),
    "photometric": ("PhotometricInterpretation", _word),
    "rows": ("Rows", _short),
    "columns": ("Columns", _short),
    "bits_allocated": ("BitsAllocated", _short),
    "bits_stored": ("BitsStored", _short),
    "high_bit": ("HighBit", _short),
    "signed": ("PixelRepresentation", _short),
    "padding": ("PixelPaddingValue", _short),
    "padding_limit": ("PixelPaddingRangeLimit", _short),
    "slope": ("RescaleSlope", _number),
    "intercept": ("RescaleIntercept", _number),
    "modality_lut": ("ModalityLUTSequence", _table),
    "window_centers": ("WindowCenter", _numbers),
    "window_widths": ("WindowWidth", _numbers),
    "voi_function": ("VOILUTFunction", _word),
    "voi_lut": ("VOILUTSequence", _table),
}
"""Field of ``Header`` → attribute and how it is read; three fields are read from several attributes, below."""

_IDENTITY = (
    "PatientName",
    "OtherPatientNames",
    "PatientBirthName",
    "PatientMotherBirthName",
    "PatientID",
    "OtherPatientIDs",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "NameOfPhysiciansReadingStudy",
    "RequestingPhysician",
    "OperatorsName",
    "InstitutionName",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "ResponsiblePerson",
    "PhysiciansOfRecord",
)
_OTHER_IDS = "OtherPatientIDsSequence"
_FRAME_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_SPACINGS = ("ImagerPixelSpacing", "PixelSpacing")


def _tags() -> Iterator[int]:
    for keyword in (*(keyword for keyword, _ in _FIELDS.values()), *_IDENTITY, _OTHER_IDS, *_FRAME_GROUPS, *_SPACINGS):
        tag = tag_for_keyword(keyword)
        assert tag is not None, keyword
        yield tag


_TAGS = sorted(set(_tags()))
