from typing import Literal

import pytest

from mammofed_shared.data.cohort import CohortExam, embed_cohort


def screening(exam: str, day: int, birads: int | None = 1, patient: str = "p") -> CohortExam:
    return CohortExam(exam, patient, day, "screening", birads)


def diagnostic(exam: str, day: int, birads: int | None = 4, patient: str = "p") -> CohortExam:
    return CohortExam(exam, patient, day, "diagnostic", birads)


@pytest.mark.parametrize(
    ("days_before", "part"), [(0, "positive"), (1, "positive"), (180, "positive"), (181, "negative"), (-1, "negative")]
)
def test_the_window_is_from_the_same_day_to_180_days_before(
    days_before: int, part: Literal["positive", "negative"]
) -> None:
    assert embed_cohort([screening("s", 1000 - days_before), diagnostic("d", 1000)]) == {"s": part}


@pytest.mark.parametrize("birads", [4, 5, 6])
def test_a_suspicious_diagnostic_exam_makes_the_screening_before_it_positive(birads: int) -> None:
    assert embed_cohort([screening("s", 0, birads=0), diagnostic("d", 30, birads)]) == {"s": "positive"}


@pytest.mark.parametrize("birads", [0, 1, 2, 3, None])
def test_another_diagnostic_exam_makes_nothing_positive(birads: int | None) -> None:
    assert embed_cohort([screening("s", 0, birads=0), diagnostic("d", 30, birads)]) == {}
    assert embed_cohort([screening("s", 0, birads=2), diagnostic("d", 30, birads)]) == {"s": "negative"}


def test_only_the_most_recent_screening_is_positive() -> None:
    exams = [screening("early", 0), screening("late", 100), diagnostic("d", 150)]

    assert embed_cohort(exams) == embed_cohort(exams[::-1]) == {"late": "positive"}


def test_two_screenings_of_one_visit_are_both_positive() -> None:
    assert embed_cohort([screening("left", 100), screening("right", 100), diagnostic("d", 150)]) == {
        "left": "positive",
        "right": "positive",
    }


def test_each_of_two_diagnostic_exams_selects_its_own_screening() -> None:
    exams = [
        screening("s1", 0),
        diagnostic("d1", 20),
        screening("s2", 400),
        diagnostic("d2", 420),
        screening("s3", 800),
    ]

    assert embed_cohort(exams) == {"s1": "positive", "s2": "positive"}


def test_two_diagnostic_exams_may_select_the_same_screening() -> None:
    assert embed_cohort([screening("s", 0), diagnostic("d1", 20), diagnostic("d2", 40)]) == {"s": "positive"}


def test_a_positive_patient_never_enters_the_negative_cohort() -> None:
    exams = [
        screening("years before", 0, 1),
        screening("s", 1000, 0),
        diagnostic("d", 1010),
        screening("after", 2000, 2),
    ]

    assert embed_cohort(exams) == {"s": "positive"}


def test_a_suspicious_exam_without_a_screening_in_its_window_leaves_the_patient_negative() -> None:
    exams = [screening("old", 0, 1), diagnostic("d", 500, 5), screening("later", 900, 2)]

    assert embed_cohort(exams) == {"old": "negative", "later": "negative"}


@pytest.mark.parametrize(
    ("birads", "cohort"), [(0, {}), (1, {"s": "negative"}), (2, {"s": "negative"}), (3, {}), (None, {})]
)
def test_a_screening_of_category_1_or_2_is_negative(birads: int | None, cohort: dict[str, str]) -> None:
    assert embed_cohort([screening("s", 0, birads)]) == cohort


def test_a_diagnostic_exam_is_never_in_the_cohort() -> None:
    assert embed_cohort([diagnostic("d", 0, 1), diagnostic("e", 1, 4)]) == {}


def test_days_are_compared_within_a_patient_only() -> None:
    assert embed_cohort([screening("s", 0, 2, "one"), diagnostic("d", 10, 4, "two")]) == {"s": "negative"}


def test_no_exams_give_no_cohort() -> None:
    assert embed_cohort([]) == {}
