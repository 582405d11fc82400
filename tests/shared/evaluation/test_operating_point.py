"""Sensitivity at a fixed specificity, held to a search over all thresholds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammofed_shared.evaluation.operating_point import sensitivity_at
from mammofed_shared.evaluation.statistics import ranking

EXAMS = st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=2, max_size=40)


def sensitivity_of(labels: list[bool], scores: list[float], specificity: float) -> float:
    """Of one sample."""
    order, starts = ranking(scores)
    weight = np.ones((1, len(labels)))
    return float(sensitivity_at(specificity, weight, np.array(labels)[order], starts)[0])


def test_of_ten_negatives_nine_lie_not_above_the_threshold() -> None:
    labels = [False] * 10 + [True] * 4
    scores = [float(score) for score in (*range(10), 7, 8, 9, 9.5)]
    assert sensitivity_of(labels, scores, 0.9) == 0.5, "threshold 8: 9 and 9.5 are above"
    assert sensitivity_of(labels, scores, 0.8) == 0.75, "threshold 7: 8 is above as well"


def test_equal_scores_are_on_the_same_side() -> None:
    assert sensitivity_of([False, False, True, True], [0.5, 0.5, 0.5, 0.6], 0.5) == 0.5


@given(EXAMS, st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_it_is_the_best_that_a_threshold_of_such_specificity_gives(
    exams: list[tuple[bool, int]], specificity: float
) -> None:
    labels, scores = [label for label, _ in exams], [float(score) for _, score in exams]
    found = sensitivity_of(labels, scores, specificity)
    if len(set(labels)) < 2:
        assert np.isnan(found)
        return
    negatives = [score for label, score in zip(labels, scores, strict=True) if not label]
    positives = [score for label, score in zip(labels, scores, strict=True) if label]
    best = max(
        np.mean([score > threshold for score in positives])
        for threshold in scores
        if np.mean([score <= threshold for score in negatives]) >= specificity - 1e-12
    )
    assert found == pytest.approx(best)


@given(EXAMS, st.integers(0, 2**32 - 1))
def test_a_weight_is_how_often_an_exam_stands_there(exams: list[tuple[bool, int]], seed: int) -> None:
    labels, scores = np.array([label for label, _ in exams]), [float(score) for _, score in exams]
    weight_N = np.random.default_rng(seed).integers(0, 4, len(exams))
    if not weight_N.any():
        return
    order, starts = ranking(scores)
    weighted = sensitivity_at(0.8, weight_N[None, order].astype(np.float64), labels[order], starts)[0]
    repeated = np.repeat(np.arange(len(exams)), weight_N)
    plain = sensitivity_of(labels[repeated].tolist(), [scores[place] for place in repeated], 0.8)
    assert weighted == pytest.approx(plain, nan_ok=True)
