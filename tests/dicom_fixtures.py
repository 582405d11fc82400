"""Small DICOM files made on the spot, and work functions that a spawned process can import."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

_ORIENTATIONS = {
    ("L", "CC"): ["A", "R"],
    ("L", "MLO"): ["A", "FR"],
    ("R", "CC"): ["P", "L"],
    ("R", "MLO"): ["P", "FL"],
}


def breast_pixels(rows: int = 120, columns: int = 80, highest: int = 4095) -> NDArray[np.uint16]:
    """A half disc of tissue at the left edge, brighter towards its middle, on black."""
    y, x = np.mgrid[0:rows, 0:columns]
    distance = np.sqrt(((y - rows / 2) / (rows * 0.42)) ** 2 + (x / (columns * 0.8)) ** 2)
    return np.where(distance < 1, highest * (0.9 - 0.4 * distance), 0).astype(np.uint16)


def mammogram_dataset(pixels: NDArray[np.uint16] | None = None, **changes: Any) -> Dataset:
    """An MG object of a left breast in MLO; ``changes`` set attributes by keyword, None removes one."""
    pixels = breast_pixels() if pixels is None else pixels
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = changes.pop("transfer_syntax", ExplicitVRLittleEndian)
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.Modality, dataset.PresentationIntentType = "MG", "FOR PRESENTATION"
    dataset.Manufacturer = "HOLOGIC, Inc."
    dataset.PatientName, dataset.PatientID = "Test^Anna", "P1"
    dataset.AccessionNumber, dataset.StudyDate = "A1", "20200110"
    dataset.StudyInstanceUID = "1.2.3.1"
    dataset.SOPInstanceUID = "1.2.3.1.1"
    dataset.ImageLaterality, dataset.ViewPosition = "L", "MLO"
    dataset.PatientOrientation = ["A", "FR"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.ImagerPixelSpacing = [0.1, 0.1]
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in changes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID") or generate_uid(entropy_srcs=["x"])
    return dataset


def write_mammogram(path: Path, pixels: NDArray[np.uint16] | None = None, **changes: Any) -> Path:
    """Write ``mammogram_dataset`` to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mammogram_dataset(pixels, **changes).save_as(path, enforce_file_format=True)
    return path


def write_exam(folder: Path, patient: str, day: str = "20200110", **changes: Any) -> None:
    """Four views; pixels differ from exam to exam and view to view."""
    exam = f"{patient}-{day}"
    for number, (side, view) in enumerate((side, view) for side in "LR" for view in ("CC", "MLO")):
        pixels = breast_pixels()
        pixels[40:80, 10:30] += np.uint16(sum(map(ord, exam + side + view)) % 500)
        attributes = {
            "PatientID": patient,
            "StudyDate": day,
            "AccessionNumber": f"ACC-{exam}",
            "StudyInstanceUID": f"1.2.{int(exam.encode().hex(), 16)}",
            "SOPInstanceUID": f"1.2.{int(exam.encode().hex(), 16)}.{number}",
            "ImageLaterality": side,
            "ViewPosition": view,
            "PatientOrientation": _ORIENTATIONS[side, view],
        }
        mirrored = np.ascontiguousarray(pixels if side == "L" else pixels[:, ::-1])
        write_mammogram(folder / patient / f"{exam}-{side}{view}.dcm", mirrored, **(attributes | changes))


def double_or_fail(item: int | str) -> int:
    """Twice the number; ``die`` kills this process, ``hang`` never ends, ``raise`` quotes a secret."""
    if item == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "hang":
        time.sleep(60)
    if item == "raise":
        raise RuntimeError("Mrs Secret")
    return 2 * int(item)


def prepare_or_die(recipe: Any, path: Path) -> Any:
    """``prepare_file``, with a decoder that dies over every file whose name begins with ``deadly``."""
    from mammofed_shared.dicom.preprocess import prepare_file

    if path.name.startswith("deadly"):
        os.kill(os.getpid(), signal.SIGSEGV)
    return prepare_file(recipe, path)
