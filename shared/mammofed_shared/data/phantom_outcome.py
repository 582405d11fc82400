"""What becomes of a phantom patient after her exam, and what a risk model of her world says. No clinical evidence.

A cancer comes after an exponential time whose rate follows from findings, density and age, so a score that reads the
images can tell who falls ill sooner, and none can tell when.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mammofed_shared.data.phantom import PhantomExam

YEARS = 5
"""Horizons of a risk score."""

_RATE = 0.011
"""Cancers a year of a patient of 57 years without findings and with density B. Far above a real one, so that some
hundred exams hold enough cancers."""
_OF_SUBTYPE: Mapping[str, float] = {
    "spiculated": 2.8,
    "obscured": 1.8,
    "circumscribed": 0.4,
    "pleomorphic": 2.2,
    "amorphous": 0.7,
    "focal": 1.2,
    "global": 0.9,
}
_OF_DENSITY: Mapping[str, float] = {"A": -0.4, "B": 0.0, "C": 0.3, "D": 0.6}
_OF_A_YEAR = 0.02
"""What adds to the logarithm of the rate: each finding, the density, each year of age."""
_MOST_YEARLY_RATE = 1.5
_MEAN_AGE = 57
_FOLLOW_UP_YEARS = (2.0, 9.0)
_TEACHER_DEVIATION = 0.8
"""Of the logarithm of the rate: how far the stand-in of the teacher is from the truth."""
_OUTCOME_STREAM, _TEACHER_STREAM = 1002, 1003
"""Keep these random numbers apart from those of the images."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Full years, as ``outcomes.csv`` has them; ``years_to_cancer`` is None where follow-up saw no cancer."""

    years_to_cancer: int | None
    years_followed: int


def yearly_rate(exam: PhantomExam) -> float:
    """Expected cancers a year: the truth behind outcomes and teacher."""
    effects = [_OF_SUBTYPE[finding.subtype] for finding in exam.findings]
    effects += [_OF_DENSITY[exam.density], _OF_A_YEAR * (exam.age - _MEAN_AGE)]
    return min(_RATE * math.exp(sum(effects)), _MOST_YEARLY_RATE)


def risks_of(rate: float) -> tuple[float, ...]:
    """Probability of a cancer within 1 to 5 years at a constant rate: 1 - exp(-rate * years)."""
    return tuple(-math.expm1(-rate * year) for year in range(1, YEARS + 1))


def phantom_outcome(seed: int, exam: PhantomExam) -> Outcome:
    """What happened to the patient; equal arguments give equal outcomes. ``seed`` is that of the population."""
    random = np.random.default_rng([seed, exam.patient, exam.number, _OUTCOME_STREAM])
    to_cancer = float(random.exponential(1 / yearly_rate(exam)))
    followed = float(random.uniform(*_FOLLOW_UP_YEARS))
    return Outcome(int(to_cancer) if to_cancer <= followed else None, int(min(to_cancer, followed)))


def phantom_teacher(seed: int, exam: PhantomExam) -> tuple[float, ...]:
    """A stand-in of MIRAI's risk of 1 to 5 years: the true one of a rate that is wrong by a random factor.

    Users have the scores of the real model (``site-client teach``), which knows no phantoms.
    """
    random = np.random.default_rng([seed, exam.patient, exam.number, _TEACHER_STREAM])
    return risks_of(yearly_rate(exam) * math.exp(random.normal(0, _TEACHER_DEVIATION)))
