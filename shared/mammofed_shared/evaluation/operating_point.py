"""Sensitivity where specificity is fixed: how many cancers are above a threshold that few others are above.

Shapes: N exams in the order of rising scores, G groups of equal score, R samples.
"""

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.evaluation.statistics import Values, divided

_ROUNDING = 1e-9
"""0.9 of 10 exams are 9 exams, whatever the last bit says."""


def sensitivity_at(
    specificity: float, weight_RN: Values, label_N: NDArray[np.bool_], starts: NDArray[np.intp]
) -> Values:
    """Share of positives above the lowest score at which at least so many negatives are not above it, (R,).

    The threshold is found anew in each sample, so the interval holds what is unsure of it as well. NaN where a class
    has no weight.

    Args:
        weight_RN, label_N, starts: as in ``statistics.areas``.
    """
    positive_RG = np.add.reduceat(weight_RN * label_N, starts, axis=1)
    negative_RG = np.add.reduceat(weight_RN * ~label_N, starts, axis=1)
    needed_R = specificity * negative_RG.sum(axis=1) - _ROUNDING
    is_below_RG = np.cumsum(negative_RG, axis=1) >= needed_R[:, None]
    threshold_R = is_below_RG.argmax(axis=1)
    above_RG = np.arange(positive_RG.shape[1]) > threshold_R[:, None]
    sensitivity_R = divided((positive_RG * above_RG).sum(axis=1), positive_RG.sum(axis=1))
    return np.where(negative_RG.sum(axis=1) > 0, sensitivity_R, np.nan)
