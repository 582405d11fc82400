"""AUROC, and how far a figure may lie from the truth: a bootstrap that draws patients (Mammo-FM, Statistical analysis).

Shapes: N exams, G groups of exams of equal score, P patients, R resamples of one block.
"""

from collections.abc import Callable, Sequence
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
    order, starts = ranking(scores)
    return float(areas(np.ones((1, len(order))), np.asarray(labels, bool)[order], starts)[0])


def auroc_interval(
    labels: Sequence[bool], scores: Sequence[float], patients: Sequence[str], *, seed: int = 0
) -> Interval:
    """95 % confidence interval of the AUROC by the percentiles of ``RESAMPLES`` bootstrap samples of patients.

    A patient who is drawn brings all her exams. A sample with one class only has no AUROC and does not count. Equal
    arguments give equal numbers.

    Args:
        labels, scores, patients: one of each an exam; both classes exist.
    """
    order, starts = ranking(scores)
    label_N = np.asarray(labels, bool)[order]
    interval = bootstrap(patients, lambda weight_RN: areas(weight_RN[:, order], label_N, starts), seed=seed)
    assert interval is not None, "samples that hold both classes exist"
    return interval


def bootstrap(patients: Sequence[str], figure: Callable[[Values], Values], *, seed: int = 0) -> Interval | None:
    """95 % confidence interval of any figure by the percentiles of ``RESAMPLES`` bootstrap samples of patients.

    A patient who is drawn brings all her exams. Equal arguments give equal numbers.

    Args:
        patients: one of each exam.
        figure: how often each exam stands in each sample, (R, N), to the figure of each sample, (R,); NaN where a
            sample has none: it does not count.

    Returns:
        None where no sample has the figure.
    """
    found, patient_N = np.unique(np.asarray(patients), return_inverse=True)
    patient_N = patient_N.reshape(-1)
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK_VALUES // len(patients))
    figures = [
        figure(_drawn(random, min(block, RESAMPLES - done), len(found))[:, patient_N])
        for done in range(0, RESAMPLES, block)
    ]
    drawn = np.concatenate(figures)
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return None
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(low), float(high))


def ranking(scores: Sequence[float] | Values) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The order of rising scores, and where in it each group of equal scores begins."""
    values = np.asarray(scores, np.float64)
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(values[order]) > 0]))
    return order, starts


def areas(weight_RN: Values, label_N: NDArray[np.bool_], starts: NDArray[np.intp]) -> Values:
    """AUROC of each row of weights over exams in the order of rising scores; NaN where a class has no weight."""
    won_R, pairs_R = compared(weight_RN * label_N, weight_RN * ~label_N, starts)
    return divided(won_R, pairs_R)


def compared(positive_RN: Values, negative_RN: Values, starts: NDArray[np.intp]) -> tuple[Values, Values]:
    """How many pairs of each row have the higher score on the positive side, ties being half, and how many there are.

    Args:
        positive_RN, negative_RN: weights of the exams of either side, in the order of rising scores.
        starts: as ``ranking`` gives them.
    """
    positive_RG = np.add.reduceat(positive_RN, starts, axis=1)
    negative_RG = np.add.reduceat(negative_RN, starts, axis=1)
    below_RG = np.cumsum(negative_RG, axis=1) - negative_RG / 2
    return (positive_RG * below_RG).sum(axis=1), positive_RG.sum(axis=1) * negative_RG.sum(axis=1)


def estimated(word: str, patients: Sequence[str], figure: Callable[[Values], Values]) -> dict[str, float]:
    """A figure with its interval, ``<word>``, ``<word>_low`` and ``<word>_high``; empty where the exams have none.

    Args:
        patients, figure: as in ``bootstrap``.
    """
    value = float(figure(np.ones((1, len(patients))))[0])
    interval = None if np.isnan(value) else bootstrap(patients, figure)
    return {} if interval is None else {word: value, f"{word}_low": interval.low, f"{word}_high": interval.high}


def divided(amount_R: Values, whole_R: Values) -> Values:
    """Quotients; NaN where the divisor is 0."""
    result: Values = np.divide(amount_R, whole_R, out=np.full(len(whole_R), np.nan), where=whole_R > 0)
    return result


def _drawn(random: np.random.Generator, num_samples: int, num_patients: int) -> Values:
    """How often each patient stands in each sample, (samples, P)."""
    drawn_RP = random.integers(num_patients, size=(num_samples, num_patients))
    flat = (drawn_RP + num_patients * np.arange(num_samples)[:, None]).reshape(-1)
    counts = np.bincount(flat, minlength=num_samples * num_patients)
    return counts.reshape(num_samples, num_patients).astype(np.float64)
