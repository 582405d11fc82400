from mammofed_shared.exam import Report
from mammofed_shared.report.exam_facts import ExamFacts, contradictions, first_known, merged, num_words

MASS = {"finding": "mass", "value": "positive"}


def test_words_of_both_sections_are_counted() -> None:
    assert num_words(Report("No masses  seen.", "Negative.\n")) == 4
    assert num_words(Report("", "")) == 0


def test_a_later_report_is_appended_and_an_exact_repeat_is_not() -> None:
    first, addendum = ExamFacts(report=Report("A.", "B.")), ExamFacts(report=Report("", "C."))

    assert merged([first, addendum, first]).report == Report("A.", "B. C.")
    assert merged([first, ExamFacts()]).report == Report("A.", "B.")


def test_findings_of_several_rows_are_listed_in_order_and_once() -> None:
    other = {"finding": "asymmetry", "value": "negative"}

    assert merged([ExamFacts(attributes=(MASS,)), ExamFacts(attributes=(other, MASS))]).attributes == (MASS, other)
    assert merged([ExamFacts(attributes=()), ExamFacts()]).attributes == ()
    assert merged([ExamFacts(), ExamFacts(density="A")]).attributes is None


def test_values_that_contradict_each_other_are_left_out() -> None:
    one = ExamFacts(labels={"mass": True, "cyst": False}, density="A", kind="screening", years_followed=3)
    other = ExamFacts(labels={"mass": False, "node": True}, density="B", kind="screening", years_followed=3)

    assert contradictions(one, other) == ["density", "labels"]
    assert merged([one, other]) == ExamFacts(labels={"cyst": False, "node": True}, kind="screening", years_followed=3)
    assert contradictions(one, ExamFacts(birads=1)) == []


def test_of_several_categories_the_most_severe_and_of_several_days_the_first_counts() -> None:
    rows = [ExamFacts(birads=1, shifted_day=12), ExamFacts(birads=0, shifted_day=10), ExamFacts()]

    assert merged(rows) == ExamFacts(birads=0, shifted_day=10)


def test_the_first_table_that_knows_a_field_says_it() -> None:
    first = ExamFacts(labels={"mass": True}, density="A", years_to_cancer=0)
    second = ExamFacts(labels={"mass": False, "cyst": True}, density="B", birads=0, years_to_cancer=4)

    assert first_known([first, second]) == ExamFacts(
        labels={"mass": True, "cyst": True}, density="A", birads=0, years_to_cancer=0
    )
    assert first_known([]) == ExamFacts()
