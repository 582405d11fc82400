"""Scores as a histogram that may leave the site: every bin is empty or holds enough patients."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.evaluation.discrimination import Labelled
from mammofed_shared.protocol.histogram import NEGATIVE, NUM_CELLS, POSITIVE, Bin, Histogram, histogram_numbers


def score_histograms(finding: str, labelled: Labelled, least_cell: int) -> dict[str, float]:
    """The histograms of both classes as numbers of ``protocol/histogram.py``.

    Args:
        labelled: with at least ``least_cell`` patients behind either class.
    """
    numbers: dict[str, float] = {}
    for family, label in ((POSITIVE, True), (NEGATIVE, False)):
        numbers |= histogram_numbers(family, finding, merged_bins(*labelled.of_class(label), least_cell))
    return numbers


def merged_bins(scores: Sequence[float], patients: Sequence[str], least_cell: int) -> Histogram:
    """Bins of one class: neighbouring cells are merged, from the lowest score on, until enough patients are in them.

    Each class has bins of its own: where both must fit the same ones, a hospital of 70 exams has two or three, and the
    bounds of the pooled AUROC are twice as wide (docs/evaluation.md). What is left over at the upper end goes with the
    last bin. A bin reaches from the lowest to the highest cell in which it has an exam.

    Args:
        scores, patients: one of each an exam; at least ``least_cell`` different patients.
    """
    cell_N = cells_of(scores)
    order = np.argsort(cell_N, kind="stable")
    bins: list[Bin] = []
    inside: set[str] = set()
    first = 0
    for place, exam in enumerate(order, 1):
        inside.add(patients[exam])
        is_cell_complete = place == len(order) or cell_N[order[place]] > cell_N[exam]
        if is_cell_complete and len(inside) >= least_cell:
            bins.append(Bin(int(cell_N[order[first]]), int(cell_N[exam]) + 1, place - first))
            inside, first = set(), place
    rest = len(order) - first
    if rest:
        last = bins.pop()
        bins.append(Bin(last.lower, int(cell_N[order[-1]]) + 1, last.num + rest))
    return tuple(bins)


def cells_of(scores: Sequence[float]) -> NDArray[np.intp]:
    """The cell of each score, 0 … ``NUM_CELLS`` - 1; a higher cell means a higher score."""
    place = np.floor((np.asarray(scores, np.float64) + 1) * (NUM_CELLS / 2))
    return np.clip(place, 0, NUM_CELLS - 1).astype(np.intp)
