"""Which numbers pass for a site's counts: those of the closed list, rounded, with tables that are whole."""

import math

import pytest

from federation import make_plan
from mammofed_shared.config.vendors import VENDORS
from mammofed_shared.dicom import deidentify
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.exam import View
from mammofed_shared.protocol.quality import MOST, STEP, TABLES, check_counts
from mammofed_shared.protocol.release import check_metrics
from small_counts import TOLD

GE, SIEMENS = "num_images_by_vendor/ge", "num_images_by_vendor/siemens"


def _without(*names: str) -> dict[str, float]:
    return {name: value for name, value in TOLD.items() if name not in names}


def test_a_sites_protected_counts_pass() -> None:
    assert GE not in TOLD and TOLD["num_suppressed_by_vendor"] == 2, "a table with two hidden cells is among them"
    check_counts(TOLD)
    check_metrics(make_plan(None, kind="query"), TOLD)


def test_nothing_but_the_numbers_of_hidden_cells_passes_too() -> None:
    check_counts({table.suppressed: len(table.words) for table in TABLES})


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param({**TOLD, "num_images_by_vendor/jane-doe": 5.0}, id="a word that is not on the list"),
        pytest.param({**TOLD, "num_images_by_vendor/": 5.0}, id="no word"),
        pytest.param({**TOLD, "num_images_by_patient/other": 5.0}, id="another table"),
        pytest.param({**TOLD, "loss": 0.0}, id="a number of training"),
        pytest.param({**TOLD, "num_images": math.nan}, id="not a number"),
        pytest.param({**TOLD, "num_images": math.inf}, id="infinite"),
        pytest.param({**TOLD, "num_images": -5.0}, id="negative"),
        pytest.param({**TOLD, "num_images": 250.5}, id="no integer"),
        pytest.param({**TOLD, "num_images": 252.0}, id="not rounded"),
        pytest.param({**TOLD, "num_images": 1e15}, id="more than there can be"),
        pytest.param({**TOLD, "num_suppressed_by_vendor": 3.0}, id="more hidden than are absent"),
        pytest.param({**TOLD, GE: 80.0}, id="fewer hidden than are said"),
        pytest.param({**TOLD, GE: 80.0, "num_suppressed_by_vendor": 1.0}, id="one hidden cell, which the total tells"),
        pytest.param(_without("num_suppressed_by_view"), id="a table that does not say how many are hidden"),
        pytest.param(_without("num_patients"), id="one total of three is missing"),
        pytest.param(_without("num_images", "num_exams", "num_patients"), id="cells without totals"),
        pytest.param({}, id="nothing"),
    ],
)
def test_what_is_no_protected_count_is_refused(numbers: dict[str, float]) -> None:
    for check in (lambda: check_counts(numbers), lambda: check_metrics(make_plan(None, kind="query"), numbers)):
        with pytest.raises(Refused) as caught:
            check()
        assert caught.value.code is RefusalCode.METRIC_NOT_ALLOWED
        assert "jane" not in str(caught.value), "a name that the site made up is not repeated"


def test_counts_pass_for_a_query_only() -> None:
    plan = make_plan(None, kind="query")
    evaluation = plan.model_copy(update={"kind": "evaluate"})
    with pytest.raises(Refused, match="METRIC_NOT_ALLOWED"):
        check_metrics(evaluation, TOLD)
    with pytest.raises(Refused, match="METRIC_NOT_ALLOWED"):
        check_metrics(plan, {"auroc/mass": 0.5})


def test_the_largest_count_is_a_multiple_of_the_step() -> None:
    check_counts({**TOLD, "num_images": float(MOST - MOST % STEP)})


def test_the_words_are_those_of_the_prepared_tables() -> None:
    words = {table.by: table.words for table in TABLES}
    assert sorted(VENDORS) == sorted(deidentify.VENDORS)
    assert sorted(words["view"]) == sorted(view.lower() for view in View)
    assert all(len(set(table.words)) == len(table.words) for table in TABLES)
