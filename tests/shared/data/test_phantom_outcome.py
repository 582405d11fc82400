"""Outcomes of phantom patients: tied to what the images show, and not to be known for certain."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from mammofed_shared.data.phantom import PhantomExam, Population, phantom_exam
from mammofed_shared.data.phantom_outcome import phantom_outcome, phantom_teacher, risks_of, yearly_rate

SEED = 3
POPULATION = Population(0.45, 0.45, asymmetry_prevalence=0.35)


@cache
def exams() -> tuple[PhantomExam, ...]:
    """Findings do not depend on the size of the images, so tiny ones do."""
    return tuple(phantom_exam(SEED, patient, POPULATION, shape=(24, 16)) for patient in range(400))


def falls_ill_within(years: int) -> NDArray[np.bool_]:
    found = [phantom_outcome(SEED, exam).years_to_cancer for exam in exams()]
    return np.array([year is not None and year < years for year in found])


def test_equal_arguments_give_equal_outcomes_and_scores() -> None:
    exam = phantom_exam(SEED, 7, POPULATION, shape=(48, 32))
    again = next(one for one in exams() if one.patient == 7)
    assert phantom_outcome(SEED, exam) == phantom_outcome(SEED, again)
    assert phantom_teacher(SEED, exam) == phantom_teacher(SEED, again)
    assert phantom_teacher(SEED + 1, exam) != phantom_teacher(SEED, exam)


@pytest.mark.parametrize("subtype", ["spiculated", "obscured", "pleomorphic", "focal"])
def test_a_suspicious_finding_brings_more_cancers_within_five_years(subtype: str) -> None:
    has = np.array([any(finding.subtype == subtype for finding in exam.findings) for exam in exams()])
    ill = falls_ill_within(5)
    assert ill[has].mean() > ill[~has].mean() + 0.1


def test_the_rate_follows_findings_density_and_age() -> None:
    exam = next(exam for exam in exams() if not exam.findings)
    ill = next(exam for exam in exams() if [finding.subtype for finding in exam.findings] == ["spiculated"])
    same_woman = replace(ill, density=exam.density, age=exam.age)
    assert yearly_rate(same_woman) > 10 * yearly_rate(exam)
    assert yearly_rate(replace(exam, density="D")) > yearly_rate(replace(exam, density="A"))
    assert yearly_rate(replace(exam, age=74)) > yearly_rate(replace(exam, age=40))


def test_a_quarter_to_two_fifths_fall_ill_within_five_years_and_some_follow_up_ends_before() -> None:
    assert 0.25 < falls_ill_within(5).mean() < 0.4
    outcomes = [phantom_outcome(SEED, exam) for exam in exams()]
    assert all(0 <= one.years_followed < 9 for one in outcomes)
    assert all(one.years_followed == one.years_to_cancer for one in outcomes if one.years_to_cancer is not None)
    censored = np.mean([one.years_to_cancer is None and one.years_followed < 5 for one in outcomes])
    assert 0.15 < censored < 0.5


def test_the_true_risk_tells_who_falls_ill_well_and_not_for_certain() -> None:
    rates = [yearly_rate(exam) for exam in exams()]
    teacher = [phantom_teacher(SEED, exam)[1] for exam in exams()]
    true, taught = (roc_auc_score(falls_ill_within(2), scores) for scores in (rates, teacher))
    assert 0.75 < taught < true < 0.93


def test_risks_are_probabilities_that_never_fall_with_the_year() -> None:
    for exam in exams():
        for risks in (risks_of(yearly_rate(exam)), phantom_teacher(SEED, exam)):
            assert len(risks) == 5
            assert risks[0] > 0
            assert all(first < second for first, second in zip(risks, (*risks[1:], 1.0), strict=True))
