"""AUROC and its interval, held to scikit-learn and to resamples drawn one by one."""

import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mammofed_shared.evaluation.statistics import RESAMPLES, auroc, auroc_interval


def drawn_exams(num_exams: int, num_patients: int, seed: int = 0) -> tuple[list[bool], list[float], list[str]]:
    """Exams whose scores tell something, with many ties, and patients with several exams."""
    random = np.random.default_rng(seed)
    labels = random.random(num_exams) < 0.3
    scores = (random.normal(size=num_exams) + labels).round(1)
    return labels.tolist(), scores.tolist(), [f"p{number}" for number in random.integers(num_patients, size=num_exams)]


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_that_of_scikit_learn(seed: int) -> None:
    labels, scores, _ = drawn_exams(60, 60, seed)
    assert len(set(scores)) < 60, "there are ties"
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auroc_of_one_class_is_none_and_of_equal_scores_a_half() -> None:
    assert auroc([True, True], [0.1, 0.2]) is None
    assert auroc([], []) is None
    assert auroc([False, True, False, True], [0.1, 0.4, 0.35, 0.8]) == 1.0
    assert auroc([False, True, True], [0.3, 0.3, 0.3]) == 0.5


def test_interval_is_that_of_resamples_drawn_one_by_one() -> None:
    labels, scores, patients = drawn_exams(40, 15)
    found = auroc_interval(labels, scores, patients)
    # The same draws, said plainly: patients with replacement, each with all her exams, and scikit-learn's AUROC.
    names = sorted(set(patients))
    areas = []
    for drawn in np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names))):
        exams = [exam for number in drawn for exam, own in enumerate(patients) if own == names[number]]
        areas.append(roc_auc_score([labels[exam] for exam in exams], [scores[exam] for exam in exams]))
    assert [found.low, found.high] == pytest.approx(np.percentile(areas, [2.5, 97.5]).tolist(), abs=1e-12)


def test_patients_and_not_exams_are_drawn() -> None:
    """Ten exams of each patient that say the same are one opinion, not ten."""
    labels, scores, patients = drawn_exams(60, 10**9)
    once = auroc_interval(labels, scores, patients)
    tenfold = auroc_interval(labels * 10, scores * 10, patients * 10)
    strangers = auroc_interval(labels * 10, scores * 10, [f"p{number}" for number in range(600)])
    assert tenfold.high - tenfold.low == pytest.approx(once.high - once.low, abs=1e-12)
    assert strangers.high - strangers.low < (once.high - once.low) / 2


def test_resamples_of_one_class_do_not_count() -> None:
    interval = auroc_interval([True, False, False], [0.9, 0.1, 0.2], ["a", "b", "c"])
    assert (interval.low, interval.high) == (1.0, 1.0)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        random = np.random.default_rng([seed, 7])
        labels = [number < 40 for number in range(120)]
        scores = (random.normal(size=120) + labels).tolist()
        interval = auroc_interval(labels, scores, [f"p{number}" for number in range(120)], seed=seed)
        covered += interval.low <= 0.7602 <= interval.high  # of two normal scores one standard deviation apart
    assert 0.90 <= covered / 200 <= 0.99


def test_ten_thousand_exams_take_less_than_five_seconds() -> None:
    labels, scores, patients = drawn_exams(10_000, 8_000)
    begin = time.process_time()
    auroc_interval(labels, scores, patients)
    assert time.process_time() - begin < 5
