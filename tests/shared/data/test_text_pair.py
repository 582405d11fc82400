"""The two texts of a sample: two sections, a translation, another order, or two phrasings."""

import re

import numpy as np
import pytest

from mammofed_shared.data.text_pair import text_pair
from mammofed_shared.exam import Exam, Report, Split
from mammofed_shared.report.phrasings import NUM_VARIANTS

REPORT = Report("There is a mass. There are no calcifications.", "A mass.")


def exam(report: Report) -> Exam:
    return Exam("e", "p", "one", Split.TRAIN, report, ())


def test_the_texts_are_the_two_sections_where_both_exist() -> None:
    def not_asked(text: str) -> str:
        raise AssertionError("a report with both sections needs no translation")

    assert text_pair(exam(REPORT), np.random.default_rng(0), not_asked) == (
        REPORT.findings,
        REPORT.impression,
    )


def test_the_second_text_is_the_translation_of_the_only_section() -> None:
    translations = {"A mass. It is round.": "One mass. It's round.", "Only this.": "Only this."}
    found = [
        text_pair(exam(report), np.random.default_rng(0), translations.get)
        for report in (Report("A mass. It is round.", ""), Report("", "A mass. It is round."), Report("Only this.", ""))
    ]

    assert found[0] == found[1] == ("A mass. It is round.", "One mass. It's round.")
    assert found[2] == ("Only this.", "Only this.")


def test_the_second_text_is_another_order_of_the_only_section_where_nothing_is_translated() -> None:
    only = exam(Report("One is here. Two is there. Three is left.", ""))
    views = {text_pair(only, np.random.default_rng(seed))[1] for seed in range(40)}

    assert len(views) == 6
    assert "Three is left. One is here. Two is there." in views
    single = exam(Report("", "Only this."))
    assert text_pair(single, np.random.default_rng(0)) == ("Only this.", "Only this.")


ATTRIBUTES = (
    {"finding": "mass", "value": "positive", "laterality": "left"},
    {"finding": "asymmetry", "value": "negative"},
)


def attributes_exam(attributes: tuple[dict[str, str], ...], density: str | None, birads: int | None) -> Exam:
    report = Report("The stored text.", "")
    return Exam("e1", "p", "one", Split.TRAIN, report, (), density=density, birads=birads, attributes=attributes)


def test_structured_findings_give_the_plain_text_and_another_phrasing_drawn_anew() -> None:
    recorded = attributes_exam(ATTRIBUTES, "C", 0)
    pairs = [text_pair(recorded, np.random.default_rng([7, epoch, 3])) for epoch in range(200)]

    assert pairs[5] == text_pair(recorded, np.random.default_rng([7, 5, 3]))
    assert {text for text, _ in pairs} == {"The stored text."}
    texts = {other for _, other in pairs}
    assert len(texts) == NUM_VARIANTS
    for text in texts:
        assert {"left", "mass", "asymmetries", "heterogeneously", "rads"} <= set(re.findall(r"\w+", text.lower()))
        assert "stored" not in text


@pytest.mark.parametrize(
    ("attributes", "density", "birads"), [((), "A", None), (ATTRIBUTES[1:], None, None), (ATTRIBUTES[:1], None, 2)]
)
def test_one_fact_is_told_in_two_ways(
    attributes: tuple[dict[str, str], ...], density: str | None, birads: int | None
) -> None:
    recorded = attributes_exam(attributes, density, birads)

    for seed in range(50):
        text, view = text_pair(recorded, np.random.default_rng(seed))
        assert text and view and text != view
