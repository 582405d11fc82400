"""What the numbers alone show of too few patients: the parent's second look at what a worker would tell of a risk."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammofed_shared.evaluation.risk import evaluate_risk, validation_numbers
from mammofed_site.small_differences import small_difference
from risk_exams import drawn_exams

TOLD = {
    "num_positive/year1": 20.0,
    "num_labelled/year1": 200.0,
    "num_positive/year5": 60.0,
    "num_labelled/year5": 150.0,
    "num_positive/year5/density-a": 20.0,
    "num_labelled/year5/density-a": 50.0,
    "num_positive/year5/density-b": 30.0,
    "num_labelled/year5/density-b": 70.0,
    "num_positive/year5/age-40-49": 60.0,
    "num_labelled/year5/age-40-49": 150.0,
    "num_positive/year5/q10": 60.0,
    "num_positive/proxy": 19.0,
}
"""Ten cancers and twenty others of year 5 are in no told group of density."""


def test_differences_of_enough_exams_or_of_none_may_be_told() -> None:
    assert small_difference(TOLD, 10) is None
    assert small_difference(TOLD, 11) == "num_positive/year5", "density a and b leave ten cancers"
    assert small_difference({"num_exams": 3.0, "auroc/mass": 0.5}, 10) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"num_positive/year1": 51.0},
        {"num_labelled/year1": 151.0},
        {"num_positive/outcome": 60.0, "num_labelled/outcome": 209.0},
        {"num_positive/year5/density-b": 39.0},
        {"num_labelled/year5/density-b": 89.0},
        {"num_positive/year5/age-40-49": 59.0, "num_labelled/year5/age-40-49": 140.0},
    ],
)
def test_a_difference_of_a_few_exams_is_found(changed: Mapping[str, float]) -> None:
    assert small_difference({**TOLD, **changed}, 10) is not None


def test_data_sets_of_a_validation_are_looked_at_one_by_one() -> None:
    told = {"received/num_positive/year1/d1": 20.0, "received/num_positive/year5/d2": 21.0}
    assert small_difference(told, 10) is None, "other exams"
    told["received/num_positive/year5/d1"] = 21.0
    assert small_difference(told, 10) is not None
    assert small_difference({"sent/num_positive/year1/d1": 20.0, "sent/num_positive/year2/d1": 22.0}, 10) is not None


@settings(max_examples=15, deadline=None)
@given(st.integers(20, 150), st.integers(0, 1000), st.integers(2, 12))
def test_what_a_worker_tells_always_passes(num: int, seed: int, least: int) -> None:
    exams, risk_NT = drawn_exams(num, seed, exams_per_patient=2)
    assert small_difference(evaluate_risk(exams, risk_NT, least).numbers, least) is None
    assert small_difference(validation_numbers(exams, risk_NT, least), least) is None
