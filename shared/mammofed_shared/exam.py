"""What a hospital's exam is to us: patient > exam > image, with a report. Plain records, no reading or writing.

Everything here stays at the site. Identifiers are pseudonyms (keyed hashes made by ``site-client preprocess``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class View(StrEnum):
    """Projection of a screening mammogram; every other view is refused at intake."""

    CC = "CC"
    MLO = "MLO"


class Laterality(StrEnum):
    """Side of the breast, as the patient sees it."""

    L = "L"
    R = "R"


class Split(StrEnum):
    """Part of the cohort; drawn by patient, so that no patient stands in two."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Report:
    """The text of one exam; a section that the hospital does not write is empty."""

    findings: str
    impression: str


@dataclass(frozen=True, slots=True)
class Image:
    """One prepared mammogram: 8-bit grey PNG, chest wall left, size as the data set's preprocessing says."""

    image: str
    laterality: Laterality
    view: View
    path: Path


@dataclass(frozen=True, slots=True)
class Exam:
    """One DICOM study of one patient.

    ``labels`` maps a finding (``mass``, ``calcification``) to presence in the exam; a finding that nobody recorded is
    absent from the mapping. ``density`` is A–D or None. Labels serve evaluation only; training sees images and text.
    ``attributes`` are the structured findings where the text was made from them, else None; exams that record the same
    share one object. ``birads`` is 0 to 6 or None.
    """

    exam: str
    patient: str
    dataset: str
    split: Split
    report: Report | None
    images: tuple[Image, ...]
    labels: dict[str, bool] = field(default_factory=dict)
    density: str | None = None
    birads: int | None = None
    attributes: tuple[Mapping[str, str], ...] | None = None


@dataclass(frozen=True, slots=True)
class BreastSample:
    """One sample of pretraining: one breast of one exam; its text is the exam's report."""

    exam: Exam
    laterality: Laterality
    images: dict[View, Image]
