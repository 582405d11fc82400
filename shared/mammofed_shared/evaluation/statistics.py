"""AUROC, and how far it may lie from the truth: a bootstrap that draws patients (Mammo-FM, Statistical analysis).

Shapes: N exams, G groups of exams of equal score, P patients, R resamples of one block.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
_BLOCK_VALUES = 2**20
"""Exams times resamples that are worked on together: a few blocks of 8 MB, whatever the number of exams."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """The middle 95 % of what resampling gives."""

    low: float
    high: float


def auroc(labels: Sequence[bool], scores: Sequence[float]) -> float | None:
    """Area under the ROC curve, equal scores counting half; None where only one class exists."""
    if len(set(labels)) < 2:
        return None
    order, starts = _ranking(scores)
    return float(_areas(np.ones((1, len(order))), np.asarray(labels, bool)[order], starts)[0])


def auroc_interval(
    labels: Sequence[bool], scores: Sequence[float], patients: Sequence[str], *, seed: int = 0
) -> Interval:
    """95 % confidence interval of the AUROC by the percentiles of ``RESAMPLES`` bootstrap samples of patients.

    A patient who is drawn brings all her exams. A sample with one class only has no AUROC and does not count. Equal
    arguments give equal numbers.

    Args:
        labels, scores, patients: one of each an exam; both classes exist.
    """
    order, starts = _ranking(scores)
    label_N = np.asarray(labels, bool)[order]
    found, patient_N = np.unique(np.asarray(patients), return_inverse=True)
    patient_N = patient_N.reshape(-1)[order]
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK_VALUES // len(order))
    areas = [
        _areas(_drawn(random, min(block, RESAMPLES - done), len(found))[:, patient_N], label_N, starts)
        for done in range(0, RESAMPLES, block)
    ]
    drawn = np.concatenate(areas)
    low, high = np.percentile(drawn[~np.isnan(drawn)], [2.5, 97.5])
    return Interval(float(low), float(high))


def _ranking(scores: Sequence[float]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The order of rising scores, and where in it each group of equal scores begins."""
    values = np.asarray(scores, np.float64)
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(values[order]) > 0]))
    return order, starts


def _drawn(random: np.random.Generator, num_samples: int, num_patients: int) -> Values:
    """How often each patient stands in each sample, (samples, P)."""
    drawn_RP = random.integers(num_patients, size=(num_samples, num_patients))
    flat = (drawn_RP + num_patients * np.arange(num_samples)[:, None]).reshape(-1)
    counts = np.bincount(flat, minlength=num_samples * num_patients)
    return counts.reshape(num_samples, num_patients).astype(np.float64)


def _areas(weight_RN: Values, label_N: NDArray[np.bool_], starts: NDArray[np.intp]) -> Values:
    """AUROC of each row of weights over exams in the order of rising scores; NaN where a class has no weight."""
    positive_RG = np.add.reduceat(weight_RN * label_N, starts, axis=1)
    negative_RG = np.add.reduceat(weight_RN * ~label_N, starts, axis=1)
    below_RG = np.cumsum(negative_RG, axis=1) - negative_RG / 2
    pairs = positive_RG.sum(axis=1) * negative_RG.sum(axis=1)
    won = (positive_RG * below_RG).sum(axis=1)
    areas: Values = np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    return areas
