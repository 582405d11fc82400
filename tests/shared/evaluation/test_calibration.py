"""Observed beside expected: cells of tenths that hold enough, and the truth where it is known."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammofed_shared.config.risk_metrics import TENTHS
from mammofed_shared.evaluation.calibration import calibration_numbers, merged_tenths, tenth_numbers, tenths_of
from mammofed_shared.evaluation.cells import num_patients
from mammofed_shared.evaluation.survival import follow_up_of
from risk_exams import drawn_exams, make_exam


def test_tenths_are_of_equal_size_and_equal_risks_share_one() -> None:
    assert tenths_of(np.arange(20) / 20).tolist() == [place // 2 for place in range(20)]
    assert tenths_of(np.array([0.3] * 4 + [0.1] * 16)).tolist() == [8] * 4 + [0] * 16


def test_with_enough_of_both_classes_each_tenth_is_a_cell() -> None:
    exams = [make_exam(number, to_cancer=0 if number % 2 else None, followed=9) for number in range(100)]
    cells = merged_tenths(np.arange(100) / 100, follow_up_of(exams), 5, [exam.patient for exam in exams], 5)
    assert list(cells) == list(TENTHS)
    assert [np.flatnonzero(own_N).tolist() for own_N in cells.values()] == np.arange(100).reshape(10, 10).tolist()


def test_tenths_with_few_cancers_are_merged_and_the_last_cell_ends_at_the_highest() -> None:
    # The cancers are the tenths 3, 4 and 10.
    found = (25, 35, 36, 95, 96)
    exams = [make_exam(number, to_cancer=1 if number in found else None, followed=9) for number in range(100)]
    risk_N, follow_up, patients = np.arange(100) / 100, follow_up_of(exams), [exam.patient for exam in exams]
    cells = merged_tenths(risk_N, follow_up, 5, patients, 2)
    assert {name: own_N.sum() for name, own_N in cells.items()} == {"q4": 40, "q10": 60}
    cells = merged_tenths(risk_N, follow_up, 5, patients, 3)
    assert {name: own_N.sum() for name, own_N in cells.items()} == {"q10": 100}


@given(st.integers(30, 200), st.integers(2, 12), st.integers(1, 5))
def test_cells_hold_every_exam_once_and_enough_patients_of_either_class(num: int, least: int, year: int) -> None:
    exams, risk_NT = drawn_exams(num, exams_per_patient=2)
    follow_up, patients = follow_up_of(exams), [exam.patient for exam in exams]
    cancer_N, free_N = follow_up.cancers_by(year), follow_up.known_by(year) & ~follow_up.cancers_by(year)
    if min(num_patients(cancer_N, patients), num_patients(free_N, patients)) < least:
        return
    cells = merged_tenths(risk_NT[:, year - 1], follow_up, year, patients, least)
    assert np.sum(list(cells.values()), axis=0).tolist() == [1] * num
    assert list(cells)[-1] == "q10"
    for own_N in cells.values():
        assert num_patients(cancer_N & own_N, patients) >= least and num_patients(free_N & own_N, patients) >= least
    edges = [(risk_NT[own_N, year - 1].min(), risk_NT[own_N, year - 1].max()) for own_N in cells.values()]
    assert all(one[1] < other[0] for one, other in pairwise(edges))


def test_true_risks_are_calibrated_and_doubled_ones_are_not() -> None:
    exams, risk_NT = drawn_exams(3000, mean_log_rate=-3.0)
    follow_up, patients = follow_up_of(exams), [exam.patient for exam in exams]
    told = calibration_numbers(risk_NT[:, 4], follow_up, 5, patients)
    assert told["observed_low"] < told["expected"] < told["observed_high"]
    assert told["observed_high"] - told["observed_low"] < 0.06
    doubled = calibration_numbers(np.minimum(2 * risk_NT[:, 4], 1), follow_up, 5, patients)
    assert doubled["expected"] > doubled["observed_high"]
    cells = tenth_numbers(risk_NT[:, 4], follow_up, 5, patients, 10)
    names = [name for name in TENTHS if f"expected/{name}" in cells]
    assert len(names) >= 8
    inside = [cells[f"observed_low/{q}"] <= cells[f"expected/{q}"] <= cells[f"observed_high/{q}"] for q in names]
    assert np.mean(inside) >= 0.75
    assert [cells[f"expected/{q}"] for q in names] == sorted(cells[f"expected/{q}"] for q in names)
    assert sum(cells[f"num_positive/{q}"] for q in names) == follow_up.cancers_by(5).sum()
    assert sum(cells[f"num_labelled/{q}"] for q in names) == follow_up.known_by(5).sum()


def test_those_who_were_lost_are_not_taken_for_healthy() -> None:
    random = np.random.default_rng(0)
    exams = [
        make_exam(number, to_cancer=0 if number < 50 else None, followed=1 if number < 450 else 9)
        for number in range(500)
    ]
    risk_N = random.random(500)
    told = calibration_numbers(risk_N, follow_up_of(exams), 5, [exam.patient for exam in exams])
    assert told["observed"] == pytest.approx(0.1), "50 of 500 in the first year, and nobody later"
