"""Full-size phantom mammograms in the syntaxes that a PACS exports: 12 bit with grain, four views of two exams."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from dicom_encodings import EXPLICIT_LE, J2K_LOSSLESS, JPEG_LOSSLESS_SV1, dicom_file
from mammofed_shared.config.import_profile import ImportProfile
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.data.phantom import Population, phantom_exam
from mammofed_shared.dicom.preprocess import Recipe
from mammofed_shared.exam import Laterality, View

SIZE = (4096, 3328)
SYNTAXES = {"explicit LE": EXPLICIT_LE, "JPEG lossless": JPEG_LOSSLESS_SV1, "J2K lossless": J2K_LOSSLESS}
_PATIENTS_SIDE = {Laterality.L: ["A", "R"], Laterality.R: ["P", "L"]}


def recipe_in(folder: Path) -> Recipe:
    """The defaults, for images below ``folder``."""
    return Recipe(PreprocessingSettings(), ImportProfile(), b"k" * 32, folder / "out")


def write_files(folder: Path, num_files: int) -> dict[str, list[Path]]:
    """The same images once in each syntax of ``SYNTAXES``, by its name."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, list[Path]] = {name: [] for name in SYNTAXES}
    for patient in range((num_files + 3) // 4):
        exam = phantom_exam(7, patient, Population(0.5, 0.5), shape=SIZE)
        for number, ((laterality, view), image) in enumerate(exam.images.items()):
            if 4 * patient + number >= num_files:
                break
            values = np.clip(np.rint(image * 4095.0), 0, 4095).astype(np.uint16)
            changes = {
                "PatientID": f"P{patient}",
                "StudyInstanceUID": f"1.2.{patient + 1}",
                "SOPInstanceUID": f"1.2.{patient + 1}.{number + 1}",
                "ImageLaterality": laterality.value,
                "ViewPosition": view.value,
                "PatientOrientation": _orientation(laterality, view),
                "WindowCenter": 2047,
                "WindowWidth": 4096,
            }
            for name, syntax in SYNTAXES.items():
                path = folder / f"{syntax}-{patient}-{number}.dcm"
                path.write_bytes(dicom_file(values, syntax, **changes))
                paths[name].append(path)
    return paths


def _orientation(laterality: Laterality, view: View) -> list[str]:
    rows, columns = _PATIENTS_SIDE[laterality]
    return [rows, columns if view is View.CC else f"F{columns}"]
