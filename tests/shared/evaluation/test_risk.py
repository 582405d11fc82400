"""What a site tells of a risk model: the right exams behind each number, and nothing of a few patients."""

import re
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammofed_shared.config.risk_metrics import (
    AGE_WORDS,
    FAMILY_OF,
    GROUPS,
    RISK_EVALUATION,
    RISK_VALIDATION,
    TENTHS,
    YEARS,
)
from mammofed_shared.data.risk import censored_labels
from mammofed_shared.evaluation.histogram import cells_of
from mammofed_shared.evaluation.risk import (
    evaluate_risk,
    on_the_grid,
    outcome_numbers,
    proxy_numbers,
    teacher_numbers,
    validation_numbers,
    vendor_group,
)
from mammofed_shared.evaluation.statistics import auroc, auroc_interval
from mammofed_shared.evaluation.survival import follow_up_of
from mammofed_shared.exam import AGE_BANDS
from mammofed_shared.protocol.histogram import check_histograms, is_histogram
from risk_exams import drawn_exams, make_exam, risks_of


def declared_form(name: str) -> str:
    """The name as the closed list has it."""
    return re.sub(r"^(histogram_\w+/\w+)/\d+$", r"\1/#", name)


def test_every_number_is_on_the_closed_list_and_each_family_of_them_is_told() -> None:
    exams, risk_NT = drawn_exams(600)
    exams += [make_exam(1000 + number, cancer=number % 3 == 0) for number in range(60)]
    risk_NT = np.concatenate([risk_NT, risks_of(np.random.default_rng(0).random(60))])
    numbers = evaluate_risk(exams, risk_NT, 5).numbers
    assert {declared_form(name) for name in numbers} <= RISK_EVALUATION
    missing = {name.split("/")[0] for name in RISK_EVALUATION} - {name.split("/")[0] for name in numbers}
    assert missing == {"duration_s", "suppressed"}, "the visit measures the first, and here nothing is too small"
    assert all(f"auroc/{year}" in numbers for year in YEARS)
    assert {name.split("/")[2] for name in numbers if name.startswith("auroc/year5/")} == {
        *GROUPS["density"],
        "age-40-49",
        "age-50-59",
        "age-70-plus",
        "vendor-hologic",
        "vendor-ge",
    }
    check_histograms(numbers)


def test_words_of_groups_are_those_of_exams() -> None:
    assert tuple(AGE_WORDS) == AGE_BANDS
    assert all(re.fullmatch(r"[a-z0-9_-]{1,64}", name) for name in FAMILY_OF)
    assert vendor_group(make_exam(0, vendors=("ge", "ge"))) == "vendor-ge"
    assert vendor_group(make_exam(0, vendors=("ge", "hologic"))) is None
    assert len(TENTHS) == 10 and TENTHS[-1] == "q10"


def test_a_year_is_judged_by_the_exams_of_which_it_is_known() -> None:
    exams, risk_NT = drawn_exams(300)
    numbers = outcome_numbers(exams, risk_NT, 2)
    for year, name in enumerate(YEARS, 1):
        known = [
            (exam.years_to_cancer is not None and exam.years_to_cancer < year, risk, exam.patient)
            for exam, risk in zip(exams, risk_NT[:, year - 1], strict=True)
            if exam.years_to_cancer is not None or (exam.years_followed or 0) >= year
        ]
        labels, scores, patients = (list(column) for column in zip(*known, strict=True))
        interval = auroc_interval(labels, scores, patients)
        assert numbers[f"num_labelled/{name}"] == len(known) and numbers[f"num_positive/{name}"] == sum(labels)
        assert numbers[f"auroc/{name}"] == auroc(labels, scores)
        assert (numbers[f"auroc_low/{name}"], numbers[f"auroc_high/{name}"]) == (interval.low, interval.high)
        assert numbers[f"sensitivity90/{name}"] <= numbers[f"sensitivity80/{name}"]
        for word in ("sensitivity80", "observed", "brier", "auroc"):
            assert numbers[f"{word}_low/{name}"] <= numbers[f"{word}/{name}"] <= numbers[f"{word}_high/{name}"]
    is_followed = [exam.years_to_cancer is not None or exam.years_followed != 0 for exam in exams]
    assert numbers["num_labelled/outcome"] == sum(is_followed)
    assert numbers["num_positive/outcome"] == numbers["num_positive/year5"]


def test_groups_are_of_the_longest_year_that_is_told() -> None:
    exams, risk_NT = drawn_exams(400)
    numbers = outcome_numbers(exams, risk_NT, 2)
    assert {name.split("/")[1] for name in numbers if name.split("/")[-1] in FAMILY_OF} == {"year5"}
    dense = [place for place, exam in enumerate(exams) if exam.density == "D"]
    alone = outcome_numbers([exams[place] for place in dense], risk_NT[dense], 2)
    for word in ("auroc", "auroc_low", "num_positive", "num_labelled"):
        assert numbers[f"{word}/year5/density-d"] == alone[f"{word}/year5"]
    short = [make_exam(n, to_cancer=n % 4 if n < 80 else None, followed=3 + (n % 2), density="A") for n in range(200)]
    numbers = outcome_numbers(short, np.random.default_rng(0).random((200, 5)), 10)
    assert numbers["suppressed/year5"] == 1 and "auroc/year4/density-a" in numbers


def test_tenths_and_histograms_are_of_the_longest_year_that_is_told() -> None:
    exams, risk_NT = drawn_exams(600)  # whose years all rank exams alike: tenths of two would differ by few cancers
    numbers = outcome_numbers(exams, risk_NT, 10)
    assert all(f"observed/{year}" in numbers for year in YEARS)
    assert {name.split("/")[1] for name in numbers if name.split("/")[-1] in TENTHS} == {"year5"}
    assert {name.split("/")[1] for name in numbers if is_histogram(name)} == {"year5"}


def test_an_exam_without_outcome_label_or_teacher_moves_nothing_but_the_count() -> None:
    exams, risk_NT = drawn_exams(120)
    more = [*exams, make_exam(500), make_exam(501, followed=0)]
    numbers = evaluate_risk(exams, risk_NT, 4).numbers
    others = evaluate_risk(more, np.concatenate([risk_NT, risk_NT[:2]]), 4).numbers
    assert others.pop("num_exams") == numbers.pop("num_exams") + 2
    assert others == numbers


def test_a_site_without_outcomes_tells_of_labels_alone() -> None:
    random = np.random.default_rng(2)
    exams = [make_exam(number, cancer=number % 4 == 0) for number in range(80)]
    risk_NT = risks_of(random.random(80) + [exam.labels["cancer"] for exam in exams])
    numbers = evaluate_risk(exams, risk_NT, 10).numbers
    assert {name.split("/")[1] for name in numbers if "/" in name} == {"proxy"}
    assert numbers["auroc/proxy"] == auroc([exam.labels["cancer"] for exam in exams], risk_NT[:, 0].tolist())
    assert (numbers["num_positive/proxy"], numbers["num_labelled/proxy"]) == (20, 80)
    assert evaluate_risk(exams, risk_NT, 21).numbers == {"num_exams": 80, "suppressed/proxy": 1}


def test_an_exam_with_an_outcome_is_no_proxy() -> None:
    exams = [make_exam(n, cancer=n % 2 == 0, followed=None if n < 40 else 3) for n in range(80)]
    numbers = proxy_numbers(exams, np.random.default_rng(0).random((80, 5)), 2)
    assert numbers["num_labelled/proxy"] == 40


def test_the_teacher_is_met_where_it_is_known() -> None:
    exams, risk_NT = drawn_exams(100)
    exams = [*exams[:60], *(make_exam(number, followed=5) for number in range(60, 100))]
    numbers = teacher_numbers(exams, risk_NT, 10)
    teacher = np.array([exam.teacher for exam in exams[:60]])
    assert numbers["num_exams/teacher"] == 60
    assert numbers["pearson/teacher/year3"] == pytest.approx(np.corrcoef(teacher[:, 2], risk_NT[:60, 2])[0, 1])
    assert teacher_numbers(exams, risk_NT, 61) == {"suppressed/teacher": 1}
    assert teacher_numbers(exams[60:], risk_NT[60:], 10) == {}


def test_scores_of_each_exam_and_year_stay_with_their_label() -> None:
    exams = [make_exam(0, to_cancer=2, followed=2), make_exam(1, followed=3)]
    scores = evaluate_risk(exams, risks_of(np.array([0.2, 0.1])), 2).scores
    assert [(score.exam.exam, score.finding, score.label) for score in scores[4:8]] == [
        ("e0", "year3", True),
        ("e1", "year3", False),
        ("e0", "year4", True),
        ("e1", "year4", None),
    ]
    assert scores[0].score == pytest.approx(1 - np.exp(-0.2))


def test_histograms_keep_the_order_of_small_risks() -> None:
    risks = np.sort(np.random.default_rng(0).beta(0.5, 60, 500)).tolist()
    assert len(set(cells_of(risks))) < 80, "on the grid of cosines they would share a few cells"
    cells = cells_of([on_the_grid(risk) for risk in risks])
    assert len(set(cells)) > 250 and np.all(np.diff(cells) >= 0)
    assert [on_the_grid(risk) for risk in (0.0, 0.5, 1.0)] == [-1, 0, 1]


def test_validation_tells_the_years_that_an_evaluation_of_the_same_exams_would() -> None:
    exams, risk_NT = drawn_exams(150)
    numbers, evaluated = validation_numbers(exams, risk_NT, 8), outcome_numbers(exams, risk_NT, 8)
    assert set(numbers) <= set(RISK_VALIDATION)
    assert {name for name in numbers if name.startswith("auroc/")} == {
        f"auroc/{year}" for year in YEARS if f"auroc/{year}" in evaluated
    }
    assert numbers == {name: evaluated[name] for name in numbers}
    assert 0 < len(numbers) < len(RISK_VALIDATION), "some years are told and some are not"


@settings(max_examples=15, deadline=None)
@given(st.integers(20, 120), st.integers(0, 1000), st.integers(2, 12))
def test_no_two_counts_that_are_told_differ_by_a_few_exams(num: int, seed: int, least: int) -> None:
    exams, risk_NT = drawn_exams(num, seed)
    numbers = outcome_numbers(exams, risk_NT, least)
    for word in ("num_positive", "num_labelled"):
        whole = {name: value for name, value in numbers.items() if re.fullmatch(rf"{word}/(year\d|outcome)", name)}
        for one, other in combinations(whole.values(), 2):
            assert one == other or abs(one - other) >= least
        parts = {name: value for name, value in numbers.items() if name.startswith(f"{word}/") and name not in whole}
        assert all(value >= least for value in parts.values())
        for family, groups in GROUPS.items():
            told = [value for name, value in parts.items() if name.split("/")[2] in groups]
            rest = whole[f"{word}/{max(name.split('/')[1] for name in parts)}"] - sum(told) if told else 0
            assert rest == 0 or rest >= least, family


def test_training_and_evaluation_know_the_same_of_an_exam() -> None:
    exams, _ = drawn_exams(200)
    follow_up = follow_up_of([*exams, make_exam(500), make_exam(501, to_cancer=7)])
    for place, exam in enumerate([*exams, make_exam(500), make_exam(501, to_cancer=7)]):
        has_cancer_T, known_T = censored_labels(exam)
        assert [follow_up.cancers_by(year)[place] for year in range(1, 6)] == has_cancer_T.tolist()
        assert [follow_up.known_by(year)[place] for year in range(1, 6)] == known_T.tolist()
