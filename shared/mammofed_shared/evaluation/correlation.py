"""How alike two scores of the same exams are: Pearson's r with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from mammofed_shared.evaluation.statistics import Interval, Values

_DEVIATIONS = NormalDist().inv_cdf(0.975)
_FEWEST = 4
"""Fisher's interval divides by √(n - 3)."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """Pearson's r and its 95 % interval."""

    r: float
    interval: Interval


def pearson(first_N: Values, second_N: Values, patients: Sequence[str]) -> Correlation | None:
    """Correlation of two scores; None where one of them is constant, or with fewer than four patients.

    The interval is that of Fisher's z (1921). Exams of one patient are not independent, so n in its width √(n - 3) is
    the number of patients: with one exam each, Fisher's own.

    Args:
        first_N, second_N, patients: one of each exam.
    """
    num_patients = len(set(patients))
    if num_patients < _FEWEST or np.ptp(first_N) == 0 or np.ptp(second_N) == 0:
        return None
    r = float(np.clip(np.corrcoef(first_N, second_N)[0, 1], -1, 1))
    if abs(r) == 1:
        return Correlation(r, Interval(r, r))
    z, width = math.atanh(r), _DEVIATIONS / math.sqrt(num_patients - 3)
    return Correlation(r, Interval(math.tanh(z - width), math.tanh(z + width)))
