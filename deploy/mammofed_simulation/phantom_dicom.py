"""A phantom's image as the DICOM object that a hospital's machine would send. Phantoms are no clinical evidence."""

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from mammofed_shared.exam import Laterality, View

_VIEW_CODES = {View.CC: ("399162004", "cranio-caudal"), View.MLO: ("399368009", "medio-lateral oblique")}
_SPACING_MM = 0.3


@dataclass(frozen=True, slots=True)
class Machine:
    """One hospital's mammograph and archive.

    ``transfer_syntax`` leaves out JPEG 2000: its 51 ms to write and 43 ms to read an image would cost the demo minutes.
    """

    manufacturer: str
    model: str
    bits_stored: int
    photometric: Literal["MONOCHROME1", "MONOCHROME2"]
    transfer_syntax: Literal["explicit", "rle", "deflated"]


@dataclass(frozen=True, slots=True)
class Acquisition:
    """Who and what an image shows; all of it invented."""

    patient_name: str
    patient_id: str
    birth_date: str
    age: int
    accession: str
    study_date: str
    institution: str
    laterality: Laterality
    view: View
    intent: Literal["FOR PRESENTATION", "FOR PROCESSING"] = "FOR PRESENTATION"


def mammogram(image: NDArray[np.float32], machine: Machine, acquisition: Acquisition) -> bytes:
    """A DICOM file of an image in 0..1, its chest wall left for a left breast and right for a right one."""
    dataset = _attributes(machine, acquisition)
    highest = (1 << machine.bits_stored) - 1
    stored = np.rint(np.clip(image, 0, 1) * highest).astype(np.uint16)
    if machine.photometric == "MONOCHROME1":
        stored = (highest - stored).astype(np.uint16)
    dataset.Rows, dataset.Columns = stored.shape
    if machine.transfer_syntax == "rle":
        dataset.PixelData = encapsulate([rle_frame(stored)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    else:
        dataset.PixelData = stored.astype("<u2").tobytes()
        dataset["PixelData"].VR = "OW"
    return _file(dataset, machine)


def rle_frame(stored: NDArray[np.uint16]) -> bytes:
    """An image as one RLE frame (PS3.5 G): a segment of high bytes, a segment of low bytes, row by row.

    Only the constant ends of a row, the background, are coded as runs: 10 ms where pydicom's encoder takes 120.
    """
    segments = [_rle_segment((stored >> 8).astype(np.uint8)), _rle_segment((stored & 0xFF).astype(np.uint8))]
    offsets = [64, 64 + len(segments[0])]
    return struct.pack("<16L", len(segments), *offsets, *[0] * 13) + b"".join(segments)


def _rle_segment(plane: NDArray[np.uint8]) -> bytes:
    width = plane.shape[1]
    lead = _run_lengths(plane)
    tail = _run_lengths(plane[:, ::-1])
    coded = bytearray()
    for row, start, end in zip(plane, lead, width - tail, strict=True):
        data = row.tobytes()
        if start == width:  # the whole row is one value
            _code_run(coded, data)
            continue
        _code_run(coded, data[:start])
        for at in range(start, end, 128):
            part = data[at : min(at + 128, end)]
            coded.append(len(part) - 1)
            coded += part
        _code_run(coded, data[end:])
    return bytes(coded) + b"\0" * (len(coded) % 2)


def _run_lengths(plane: NDArray[np.uint8]) -> NDArray[np.intp]:
    """How many pixels at the start of each row are equal."""
    differs = plane != plane[:, :1]
    return np.asarray(np.where(differs.any(1), differs.argmax(1), plane.shape[1]), np.intp)


def _code_run(coded: bytearray, data: bytes) -> None:
    for at in range(0, len(data), 128):
        length = min(128, len(data) - at)
        # A replicate run has at least two values; one value is a literal run of one.
        coded += bytes((257 - length if length > 1 else 0, data[at]))


def _attributes(machine: Machine, acquisition: Acquisition) -> Dataset:
    is_presented = acquisition.intent == "FOR PRESENTATION"
    left = acquisition.laterality is Laterality.L
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["DERIVED" if is_presented else "ORIGINAL", "PRIMARY"]
    dataset.SOPClassUID = (
        DigitalMammographyXRayImageStorageForPresentation
        if is_presented
        else DigitalMammographyXRayImageStorageForProcessing
    )
    dataset.SOPInstanceUID = _uid(acquisition, acquisition.laterality, acquisition.view, acquisition.intent)
    dataset.StudyDate, dataset.StudyTime = acquisition.study_date, "101500"
    dataset.AccessionNumber = acquisition.accession
    dataset.Modality = "MG"
    dataset.PresentationIntentType = acquisition.intent
    dataset.Manufacturer, dataset.ManufacturerModelName = machine.manufacturer, machine.model
    dataset.InstitutionName = acquisition.institution
    dataset.ReferringPhysicianName = "Referrer^Phantom"
    dataset.SeriesDescription = f"phantom {acquisition.laterality}{acquisition.view}"
    dataset.PatientName, dataset.PatientID = acquisition.patient_name, acquisition.patient_id
    dataset.PatientBirthDate, dataset.PatientSex = acquisition.birth_date, "F"
    dataset.PatientAge = f"{acquisition.age:03d}Y"
    dataset.BodyPartExamined = "BREAST"
    dataset.ImagerPixelSpacing = [_SPACING_MM, _SPACING_MM]
    dataset.ViewPosition = acquisition.view.value
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid(acquisition), _uid(acquisition, "series")
    dataset.PatientOrientation = ["A" if left else "P", _downwards(left, acquisition.view)]
    dataset.ImageLaterality = acquisition.laterality.value
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, machine.photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, machine.bits_stored, machine.bits_stored - 1
    dataset.PixelRepresentation = 0
    dataset.BurnedInAnnotation, dataset.BreastImplantPresent = "NO", "NO"
    dataset.WindowCenter, dataset.WindowWidth = 1 << (machine.bits_stored - 1), 1 << machine.bits_stored
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape = "IDENTITY" if machine.photometric == "MONOCHROME2" else "INVERSE"
    code, meaning = _VIEW_CODES[acquisition.view]
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "SCT", meaning
    item.ViewModifierCodeSequence = []
    dataset.ViewCodeSequence = [item]
    return dataset


def _downwards(left: bool, view: View) -> str:
    """Direction of the columns: to the feet in MLO; in CC to the inner side, which is the right of a left breast."""
    inner = "R" if left else "L"
    return inner if view is View.CC else f"F{inner}"


def _uid(acquisition: Acquisition, *parts: str) -> str:
    return generate_uid(entropy_srcs=[acquisition.patient_id, acquisition.accession, *parts])


def _file(dataset: Dataset, machine: Machine) -> bytes:
    """The dataset with its file meta information (PS3.10 7.1)."""
    syntaxes = {
        "explicit": ExplicitVRLittleEndian,
        "rle": RLELossless,
        "deflated": DeflatedExplicitVRLittleEndian,
    }
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntaxes[machine.transfer_syntax]
    head = DicomBytesIO()
    write_file_meta_info(head, meta, enforce_standard=True)
    body = DicomBytesIO()
    body.is_little_endian, body.is_implicit_VR = True, False
    write_dataset(body, dataset)
    data = body.getvalue()
    if machine.transfer_syntax == "deflated":
        # pydicom would deflate at the default level: four times slower, 3 % smaller.
        deflater = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        data = deflater.compress(data) + deflater.flush()
        data += b"\0" * (len(data) % 2)
    return b"\0" * 128 + b"DICM" + head.getvalue() + data
