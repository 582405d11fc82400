"""The paired permutation test: exact on a case small enough to try all, fair under chance, keen where there is more."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from mammofed_shared.evaluation.paired import PERMUTATIONS, auroc_difference, doubled_ranks


def drawn(num: int, seed: int, better: float = 0.0) -> tuple[list[bool], list[float], list[float]]:
    """Labels and two scores of equal worth, unless the second is made ``better``."""
    random = np.random.default_rng(seed)
    labels = random.random(num) < 0.4
    shared = random.normal(size=num) + labels
    first, second = shared + random.normal(size=num), shared + random.normal(size=num) + better * labels
    return labels.tolist(), first.tolist(), second.tolist()


def test_doubled_ranks_are_twice_the_middle_ranks() -> None:
    scores = [0.3, 0.1, 0.3, 0.9, 0.3, 0.1]
    assert doubled_ranks(scores).tolist() == (2 * rankdata(scores)).astype(int).tolist()


def test_p_is_the_share_of_all_swaps_that_give_as_much() -> None:
    labels, first, second = drawn(9, 3, better=1.0)
    patients = ["a", "a", "b", "c", "c", "d", "e", "f", "g"]
    names = sorted(set(patients))
    rank_first, rank_second = rankdata(first), rankdata(second)
    observed = roc_auc_score(labels, first) - roc_auc_score(labels, second)
    as_large = []
    for swaps in product([False, True], repeat=len(names)):
        is_swapped = np.array([swaps[names.index(patient)] for patient in patients])
        one = roc_auc_score(labels, np.where(is_swapped, rank_second, rank_first))
        other = roc_auc_score(labels, np.where(is_swapped, rank_first, rank_second))
        as_large.append(abs(one - other) >= abs(observed) - 1e-12)
    found = auroc_difference(labels, first, second, patients)
    assert found is not None and found.difference == pytest.approx(observed)
    exact = np.mean(as_large)
    assert 0 < exact < 1
    assert found.p_value == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / PERMUTATIONS))


def test_equal_scores_differ_by_nothing_and_the_scale_of_a_score_does_not_matter() -> None:
    labels, first, second = drawn(40, 1)
    patients = [f"p{number}" for number in range(40)]
    same = auroc_difference(labels, first, first, patients)
    assert same is not None and (same.difference, same.p_value) == (0, 1)
    plain = auroc_difference(labels, first, second, patients)
    assert auroc_difference(labels, first, [np.exp(3 * score) + 100 for score in second], patients) == plain
    turned = auroc_difference(labels, second, first, patients)
    assert plain is not None and turned is not None
    assert turned.difference == -plain.difference and turned.p_value == plain.p_value, "two-sided"


def test_one_class_has_no_test() -> None:
    assert auroc_difference([True, True], [0.1, 0.2], [0.2, 0.1], ["a", "b"]) is None


def test_under_chance_p_is_uniform_and_a_better_model_is_found() -> None:
    patients = [f"p{number}" for number in range(60)]
    chance, better = [], []
    for seed in range(60):
        for effect, values in ((0.0, chance), (2.0, better)):
            found = auroc_difference(*drawn(60, seed, effect), patients)
            assert found is not None
            values.append(found.p_value)
    assert np.mean([p < 0.2 for p in chance]) == pytest.approx(0.2, abs=0.15)
    assert np.mean([p < 0.05 for p in better]) > 0.8


def test_ten_exams_of_each_patient_are_swapped_together() -> None:
    """Tenfold exams that say the same are no more evidence; strangers would be."""
    labels, first, second = drawn(30, 5, better=0.8)
    patients = [f"p{number}" for number in range(30)]
    once = auroc_difference(labels, first, second, patients)
    tenfold = auroc_difference(labels * 10, first * 10, second * 10, patients * 10)
    strangers = auroc_difference(labels * 10, first * 10, second * 10, [f"p{number}" for number in range(300)])
    assert once is not None and tenfold is not None and strangers is not None
    assert 0.01 < once.p_value < 0.5
    assert tenfold.p_value == pytest.approx(once.p_value, abs=0.02)
    assert strangers.p_value < once.p_value / 2
