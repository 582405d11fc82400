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


AGE_BANDS = ("<40", "40-49", "50-59", "60-69", "70+")
"""What is kept of a patient's age at the exam, in years; the age itself is not."""


@dataclass(frozen=True, slots=True)
class Report:
    """The text of one exam; a section that the hospital does not write is empty."""

    findings: str
    impression: str


@dataclass(frozen=True, slots=True)
class Image:
    """One prepared mammogram: 8-bit grey PNG, chest wall left, size as the data set's preprocessing says.

    ``vendor`` is a word of ``dicom.deidentify.VENDORS``; ``png_sha256`` the digest of the file.
    """

    image: str
    laterality: Laterality
    view: View
    path: Path
    vendor: str
    png_sha256: str


@dataclass(frozen=True, slots=True)
class Exam:
    """One DICOM study of one patient.

    ``labels`` maps a finding (``mass``, ``calcification``) to presence in the exam; a finding that nobody recorded is
    absent from the mapping. ``density`` is A–D or None. Labels serve evaluation only; training sees images and text.
    ``attributes`` are the structured findings where the text was made from them, else None; exams that record the same
    share one object. ``birads`` is 0 to 6 or None.

    ``years_to_cancer`` are full years from the exam to a diagnosis of cancer, None where none is known;
    ``years_followed`` those for which the patient is known to have been followed. ``teacher`` is MIRAI's risk of 1 to
    5 years, in 0..1. ``age_band`` is one of ``AGE_BANDS`` or None.
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
    years_to_cancer: int | None = None
    years_followed: int | None = None
    teacher: tuple[float, ...] | None = None
    age_band: str | None = None


@dataclass(frozen=True, slots=True)
class BreastSample:
    """One sample of pretraining: one breast of one exam; its text is the exam's report."""

    exam: Exam
    laterality: Laterality
    images: dict[View, Image]
