"""Histograms of scores: whole, in order, and with no bin that fewer patients than the least cell stand in."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammofed_shared.evaluation.discrimination import Labelled
from mammofed_shared.evaluation.histogram import cells_of, merged_bins, score_histograms
from mammofed_shared.protocol.histogram import NEGATIVE, NUM_CELLS, POSITIVE, Bin, histogram_numbers, histograms_in

EXAMS = st.lists(
    st.tuples(st.one_of(st.floats(-1, 1), st.sampled_from([-1.0, 0.0, 0.2501, 1.0])), st.integers(0, 25)),
    min_size=1,
    max_size=60,
)


def test_the_grid_covers_all_cosines_and_a_higher_cell_is_a_higher_score() -> None:
    assert cells_of([-1.0, -0.9995, 0.0, 1.0, 1.0000001, -1.0000001]).tolist() == [0, 0, 1000, 1999, 1999, 0]
    scores = np.sort(np.random.default_rng(0).uniform(-1, 1, 1000))
    assert np.all(np.diff(cells_of(scores.tolist())) >= 0)


def test_bins_of_exams_that_are_counted_by_hand() -> None:
    scores = [0.0101, 0.0102, 0.0201, 0.0301, 0.0302, 0.0501, 0.0601]
    patients = ["a", "a", "b", "c", "d", "e", "f"]
    assert merged_bins(scores, patients, 1) == tuple(
        Bin(1000 + cell, 1001 + cell, num) for cell, num in ((10, 2), (20, 1), (30, 2), (50, 1), (60, 1))
    )
    # a and b are the first two patients; c and d stand in one cell; e and f are the last two.
    assert merged_bins(scores, patients, 2) == (Bin(1010, 1021, 3), Bin(1030, 1031, 2), Bin(1050, 1061, 2))
    # After the first three patients, whose last cell holds d too, two are left over.
    assert merged_bins(scores, patients, 3) == (Bin(1010, 1061, 7),)


def test_a_gap_is_told_as_a_bin_of_nothing() -> None:
    bins = (Bin(1010, 1021, 3), Bin(1021, 1031, 2), Bin(1050, 1061, 2))
    numbers = histogram_numbers(POSITIVE, "mass", bins)
    assert {name.rpartition("/")[2]: value for name, value in numbers.items()} == {
        "1010": 0,
        "1021": 3,
        "1031": 2,
        "1050": 0,
        "1061": 2,
    }
    assert histograms_in(numbers) == {(POSITIVE, "mass"): bins}


@given(EXAMS, st.integers(1, 12))
def test_every_bin_is_empty_or_holds_enough_patients(exams: list[tuple[float, int]], least_cell: int) -> None:
    scores = [score for score, _ in exams]
    patients = [str(patient) for _, patient in exams]
    if len(set(patients)) < least_cell:
        return
    bins = merged_bins(scores, patients, least_cell)
    cells = cells_of(scores).tolist()
    inside = [[index for index, cell in enumerate(cells) if item.lower <= cell < item.upper] for item in bins]
    assert [len(exams) for exams in inside] == [item.num for item in bins]
    assert sum(item.num for item in bins) == len(scores), "every exam is in one bin"
    assert all(len({patients[exam] for exam in exams}) >= least_cell for exams in inside)
    assert all(one.upper <= other.lower for one, other in pairwise(bins))
    assert bins[0].lower >= 0 and bins[-1].upper <= NUM_CELLS
    told = histogram_numbers(POSITIVE, "mass", bins)
    assert histograms_in(told) == {(POSITIVE, "mass"): bins}, "what is told is what was counted"
    assert not any(0 < value < least_cell for value in told.values())


@pytest.mark.parametrize("least_cell", [1, 5])
def test_both_classes_have_bins_of_their_own(least_cell: int) -> None:
    random = np.random.default_rng(1)
    labelled = Labelled()
    for number in range(200):
        labelled.add(number % 4 == 0, float(random.uniform(-0.2, 0.4)), f"p{number}")
    found = histograms_in(score_histograms("mass", labelled, least_cell))
    assert set(found) == {(POSITIVE, "mass"), (NEGATIVE, "mass")}
    counts = Counter({family: sum(item.num for item in bins) for (family, _), bins in found.items()})
    assert counts == {POSITIVE: 50, NEGATIVE: 150}
