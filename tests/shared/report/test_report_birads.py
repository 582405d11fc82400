import pytest

from mammofed_shared.exam import Report
from mammofed_shared.report.birads import birads_in, birads_of, birads_of_cell, most_severe


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("BI-RADS 2", 2),
        ("BIRADS: 4A.", 4),
        ("BI-RADS® Category 0: Incomplete", 0),
        ("ACR BI-RADS category: 1 (negative)", 1),
        ("BI-RADS assessment category 3 - probably benign", 3),
        ("Assessment: BI-RADS Category 5", 5),
        ("FINAL ASSESSMENT: CATEGORY 2", 2),
        ("Overall assessment category 6", 6),
        ("Category 2: Benign findings", 2),
        ("BI-RADS II", 2),
        ("BI-RADS IV.", 4),
        ("Negative (BI-RADS 1).", 1),
        ("BI-RADS: Right 2, Left 0", 0),
        ("Right BI-RADS 1. Left BI-RADS 4C.", 4),
        ("BI-RADS: R2 L1", 2),
        ("BI-RADS 2 (previously BI-RADS 3)", 2),
        ("Breast density: BI-RADS C. BI-RADS 1", 1),
    ],
)
def test_a_stated_category_is_read(text: str, category: int) -> None:
    assert birads_in(text) == category


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No evidence of malignancy.",
        "Reported after the BI-RADS 5th edition, 2013.",
        "BI-RADS 4th edition",
        "Breast density: BI-RADS 3",
        "Breast composition category: BI-RADS 2",
        "Prior BI-RADS 3 lesion has resolved.",
        "Previously categorized as BI-RADS 4.",
        "BI-RADS 7",
        "BI-RADS 12",
        "A mass of category B.",
        "Return in 2 years. BI-RADS follows.",
        "Assessment: 2 cm mass",
    ],
)
def test_what_states_no_category_of_this_exam_gives_none(text: str) -> None:
    assert birads_in(text) is None


def test_the_impression_counts_more_than_the_findings() -> None:
    assert birads_of(Report("BI-RADS 4 finding.", "BI-RADS 2.")) == 2
    assert birads_of(Report("BI-RADS 4 finding.", "Suspicious.")) == 4
    assert birads_of(Report("A mass.", "Suspicious.")) is None


@pytest.mark.parametrize(
    ("cell", "category"),
    [
        ("2", 2),
        ("4A", 4),
        (" 0 ", 0),
        ("2.0", 2),
        ("BI-RADS 3", 3),
        ("birads: 6", 6),
        ("7", None),
        ("", None),
        ("2 mm", None),
    ],
)
def test_a_cell_is_read(cell: str, category: int | None) -> None:
    assert birads_of_cell(cell) == category


def test_the_most_abnormal_category_of_an_exam_counts() -> None:
    assert most_severe([1, 2, 3, 6]) == 6
    assert most_severe([6, 0, 3]) == 0
    assert most_severe([0, 4, 1]) == 4
    assert most_severe([5, 4]) == 5
    assert most_severe([]) is None
