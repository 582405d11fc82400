"""Exams with outcomes for tests of what a risk model is measured by."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.exam import Exam, Image, Laterality, Split, View

Values = NDArray[np.float64]


def make_exam(
    number: int,
    patient: str | None = None,
    *,
    to_cancer: int | None = None,
    followed: int | None = None,
    teacher: tuple[float, ...] | None = None,
    cancer: bool | None = None,
    density: str | None = None,
    age_band: str | None = None,
    vendors: Sequence[str] = ("hologic",),
) -> Exam:
    """One exam, of a patient of its own unless told otherwise."""
    return Exam(
        exam=f"e{number}",
        patient=patient or f"p{number}",
        dataset="screening",
        split=Split.TEST,
        report=None,
        images=tuple(
            Image(f"i{number}-{place}", Laterality.L, View.CC, Path("none.png"), vendor, "")
            for place, vendor in enumerate(vendors)
        ),
        labels={} if cancer is None else {"cancer": cancer},
        density=density,
        years_to_cancer=to_cancer,
        years_followed=followed,
        teacher=teacher,
        age_band=age_band,
    )


def risks_of(rate_N: Values) -> Values:
    """Risks of 1 to 5 years at constant rates, (N, 5)."""
    return -np.expm1(-rate_N[:, None] * np.arange(1, 6))


def drawn_exams(
    num_exams: int, seed: int = 0, *, exams_per_patient: int = 1, mean_log_rate: float = -2.5
) -> tuple[list[Exam], Values]:
    """Exams with outcomes of years 0 … 8, half of them lost within 5 years; and their true risks (N, 5)."""
    random = np.random.default_rng([seed, num_exams])
    rate_N = np.exp(random.normal(mean_log_rate, 1.0, num_exams))
    to_cancer_N, followed_N = random.exponential(1 / rate_N), random.uniform(0.5, 9, num_exams)
    exams = [
        make_exam(
            number,
            f"p{number // exams_per_patient}",
            to_cancer=int(to_cancer) if to_cancer <= followed else None,
            followed=int(min(to_cancer, followed)),
            teacher=tuple(risks_of(np.array([rate * float(random.lognormal(0, 0.5))]))[0].tolist()),
            density="ABCD"[number % 4],
            age_band=("40-49", "50-59", "70+")[number % 3],
            vendors=("hologic" if number % 5 else "ge",),
        )
        for number, (rate, to_cancer, followed) in enumerate(zip(rate_N, to_cancer_N, followed_N, strict=True))
    ]
    return exams, risks_of(rate_N)
