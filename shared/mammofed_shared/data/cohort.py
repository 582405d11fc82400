"""The EMBED case definition: which screening exams precede a suspicious diagnostic exam, and which are normal.

Mammo-FM, Methods, after Hwang et al. (2023): "all diagnostic mammograms with a BI-RADS assessment of 4, 5, or 6 are
identified. For each of these cases, the most recent prior screening mammogram within a 180-day window is selected. The
negative cohort consists of all screening studies with a BI-RADS assessment of 1 or 2. Patients appearing in the
positive cohort are stringently excluded from the negative cohort". The diagnostic exam needs no images: a row does.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

WINDOW_DAYS = 180
_SUSPICIOUS = (4, 5, 6)
_NORMAL = (1, 2)

Part = Literal["positive", "negative"]


@dataclass(frozen=True, slots=True)
class CohortExam:
    """One exam as far as the definition looks at it; ``day`` is comparable within one patient only."""

    exam: str
    patient: str
    day: int
    kind: Literal["screening", "diagnostic"]
    birads: int | None


def embed_cohort(exams: Iterable[CohortExam]) -> dict[str, Part]:
    """Exam → its part of the cohort; exams that are in neither part are absent.

    A screening exam on the day of the diagnostic one is prior to it (work-up on the same day), and so is one 180 days
    before, but not 181. Two screening exams on one most recent day are both positive: one visit of two accession
    numbers. A patient whose suspicious exam has no screening exam in its window is in no positive cohort, so her normal
    screening exams count as negative.
    """
    by_patient: dict[str, list[CohortExam]] = {}
    for exam in exams:
        by_patient.setdefault(exam.patient, []).append(exam)
    cohort: dict[str, Part] = {}
    for own in by_patient.values():
        positive = _positive(own)
        if positive:
            cohort |= dict.fromkeys(positive, "positive")
        else:
            normal = [exam.exam for exam in own if exam.kind == "screening" and exam.birads in _NORMAL]
            cohort |= dict.fromkeys(normal, "negative")
    return cohort


def _positive(exams: list[CohortExam]) -> list[str]:
    """The screening exams of one patient that precede a suspicious diagnostic one most recently."""
    found: list[str] = []
    for case in exams:
        if case.kind != "diagnostic" or case.birads not in _SUSPICIOUS:
            continue
        prior = [exam for exam in exams if exam.kind == "screening" and 0 <= case.day - exam.day <= WINDOW_DAYS]
        latest = max((exam.day for exam in prior), default=None)
        found += [exam.exam for exam in prior if exam.day == latest]
    return found
