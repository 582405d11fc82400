"""Pearson's r and Fisher's interval, held to scipy."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from mammofed_shared.evaluation.correlation import pearson


def test_r_and_its_interval_are_those_of_scipy() -> None:
    random = np.random.default_rng(0)
    first = random.normal(size=50)
    second = first + random.normal(size=50)
    found, expected = pearson(first, second, [f"p{number}" for number in range(50)]), pearsonr(first, second)
    assert found is not None and found.r == pytest.approx(expected.statistic)
    interval = expected.confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx((interval.low, interval.high))


def test_the_interval_is_of_as_many_patients_as_there_are() -> None:
    random = np.random.default_rng(0)
    first, second = random.random(40), random.random(40)
    once = pearson(first, second, [f"p{number}" for number in range(40)])
    twice = pearson(np.tile(first, 2), np.tile(second, 2), [f"p{number}" for number in range(40)] * 2)
    assert once is not None and twice is not None and twice.r == pytest.approx(once.r)
    assert twice.interval.low == pytest.approx(once.interval.low)


def test_constant_scores_and_three_patients_have_none_and_equal_scores_have_one() -> None:
    scores, patients = np.arange(5.0), list("abcde")
    assert pearson(scores, np.ones(5), patients) is None
    assert pearson(scores, scores, ["a", "b", "c", "a", "b"]) is None
    same = pearson(scores, scores, patients)
    assert same is not None and same.r == pytest.approx(1) and same.interval.high == pytest.approx(1)
