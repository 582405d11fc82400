"""Is one of two models better on the same exams, or could chance have said so? A paired permutation test.

Shapes: N exams, P patients, R permutations of one block.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.evaluation.statistics import Values, auroc

PERMUTATIONS = 1000
_BLOCK_VALUES = 2**20


@dataclass(frozen=True, slots=True)
class PairedTest:
    """First minus second AUROC, and how often chance alone gives a difference as large in either direction."""

    difference: float
    p_value: float


def auroc_difference(
    labels: Sequence[bool],
    first_scores: Sequence[float],
    second_scores: Sequence[float],
    patients: Sequence[str],
    *,
    seed: int = 0,
) -> PairedTest | None:
    """Two-sided test of the difference of two AUROCs, by ``PERMUTATIONS`` permutations; None where one class is empty.

    If both models were equally good, it would not matter which of the two scored a patient. So the scores of a patient,
    all of her exams together, are exchanged or not by the toss of a coin. Models speak on scales of their own, so
    ranks are exchanged and not scores: the AUROC is the same (Venkatraman and Begg 1996). p counts the observed
    difference as one of the permutations, and is never 0.

    Args:
        labels, first_scores, second_scores, patients: one of each an exam.
    """
    first, second = auroc(labels, first_scores), auroc(labels, second_scores)
    if first is None or second is None:
        return None
    observed = first - second
    rank_2N = np.stack([doubled_ranks(first_scores), doubled_ranks(second_scores)])
    label_N = np.asarray(labels, bool)
    found, patient_N = np.unique(np.asarray(patients), return_inverse=True)
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK_VALUES // len(labels))
    num_as_large = 0
    for done in range(0, PERMUTATIONS, block):
        is_swapped_RP = random.integers(2, size=(min(block, PERMUTATIONS - done), len(found)), dtype=np.int8) == 1
        is_swapped_RN = is_swapped_RP[:, patient_N.reshape(-1)]
        difference_R = _auroc_of_ranks(np.where(is_swapped_RN, rank_2N[1], rank_2N[0]), label_N) - _auroc_of_ranks(
            np.where(is_swapped_RN, rank_2N[0], rank_2N[1]), label_N
        )
        num_as_large += int((np.abs(difference_R) >= abs(observed) - 1e-12).sum())
    return PairedTest(observed, (1 + num_as_large) / (1 + PERMUTATIONS))


def doubled_ranks(scores: Sequence[float]) -> NDArray[np.int64]:
    """Twice the rank of each score, 2 … 2N; equal scores share the middle of their ranks, hence twice."""
    _, place_N, count_G = np.unique(np.asarray(scores, np.float64), return_inverse=True, return_counts=True)
    last_G = np.cumsum(count_G)
    doubled: NDArray[np.int64] = (2 * last_G - count_G + 1)[place_N.reshape(-1)]
    return doubled


def _auroc_of_ranks(rank_RN: NDArray[np.int64], label_N: NDArray[np.bool_]) -> Values:
    """AUROC of each row, without sorting it: exams are counted by rank."""
    num_rows, num_exams = rank_RN.shape
    num_ranks = 2 * num_exams + 1
    flat_RN = rank_RN + num_ranks * np.arange(num_rows)[:, None]
    counts = [
        np.bincount(flat_RN[:, label_N == label].reshape(-1), minlength=num_rows * num_ranks).reshape(num_rows, -1)
        for label in (True, False)
    ]
    positive, negative = counts[0].astype(np.float64), counts[1].astype(np.float64)
    won = (positive * (np.cumsum(negative, axis=1) - negative / 2)).sum(axis=1)
    result: Values = won / (label_N.sum() * (~label_N).sum())
    return result
