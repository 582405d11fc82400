"""One release for each model: what was told of a state stays, whatever the data or the policy are by then."""

import json
from pathlib import Path

import pytest

from federation import make_plan, small_state
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.protocol.plan import Plan
from mammofed_site.released_evaluations import tell_evaluation

TOLD = {
    "num_exams": 70.0,
    "density_accuracy": 0.5,
    "duration_s": 3.0,
    "auroc/mass": 0.75,
    "num_positive/mass": 20.0,
    "num_labelled/mass": 50.0,
    "histogram_positive/mass/1000": 0.0,
    "histogram_positive/mass/1100": 20.0,
    "histogram_negative/mass/900": 30.0,
    "suppressed/calcification": 1.0,
}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(small_state(tmp_path / "state"), kind="evaluate")


def kept(site: Path) -> list[Path]:
    return sorted((site / "released-evaluations").iterdir())


def test_what_is_told_first_leaves_as_it_is_and_is_safe_on_disk(tmp_path: Path, plan: Plan) -> None:
    site = tmp_path / "site"
    assert tell_evaluation(site, plan, TOLD, 10) == TOLD
    (file,) = kept(site)
    assert plan.state is not None and file.name == f"{plan.state.digest}.json"
    assert file.stat().st_mode & 0o777 == 0o600
    parts = json.loads(file.read_text())["parts"]
    assert set(parts) == {"num_exams", "density_accuracy", "mass", "calcification"}
    assert "duration_s" not in file.read_text()


def test_the_same_state_is_told_as_before_whatever_was_found_this_time(tmp_path: Path, plan: Plan) -> None:
    tell_evaluation(tmp_path, plan, TOLD, 10)
    grown = {
        "num_exams": 71.0,
        "density_accuracy": 0.6,
        "duration_s": 4.0,
        "auroc/mass": 0.7,
        "num_positive/mass": 21.0,
        "num_labelled/mass": 51.0,
        "probe_auroc/mass": 0.9,
        "histogram_positive/mass/1101": 21.0,
        "histogram_negative/mass/900": 30.0,
        "auroc/calcification": 0.6,
        "num_positive/calcification": 10.0,
        "num_labelled/calcification": 51.0,
    }
    again = tell_evaluation(tmp_path, plan.model_copy(update={"run": "another"}), grown, 2)
    assert again == {**TOLD, "duration_s": 4.0}, "a finding that was not told stays untold, too"


def test_a_finding_that_was_not_told_before_is_added_and_only_what_is_asked_is_told(tmp_path: Path, plan: Plan) -> None:
    tell_evaluation(tmp_path, plan, TOLD, 10)
    other = {"num_exams": 70.0, "auroc/asymmetry": 0.8, "num_positive/asymmetry": 30.0, "num_labelled/asymmetry": 60.0}
    assert tell_evaluation(tmp_path, plan, other, 10) == other
    assert tell_evaluation(tmp_path, plan, {**TOLD, **other}, 10) == {**TOLD, **other}
    assert len(kept(tmp_path)) == 1


def test_another_state_is_told_anew(tmp_path: Path, plan: Plan) -> None:
    tell_evaluation(tmp_path / "site", plan, TOLD, 10)
    other = make_plan(small_state(tmp_path / "other", 2.0), kind="evaluate")
    assert tell_evaluation(tmp_path / "site", other, {"num_exams": 71.0}, 10) == {"num_exams": 71.0}
    assert len(kept(tmp_path / "site")) == 2


def test_of_training_only_the_validation_of_the_received_state_is_told_once(tmp_path: Path) -> None:
    plan = make_plan(small_state(tmp_path / "state"))
    site = tmp_path / "site"
    first = {"loss": 1.5, "received/recall_at_1/d1": 0.25, "received/auroc/mass/d1": 0.5, "sent/recall_at_1/d1": 0.5}
    assert tell_evaluation(site, plan, first, 10) == first
    again = {"loss": 1.25, "received/recall_at_1/d1": 0.3, "received/auroc/mass/d2": 0.6, "sent/recall_at_1/d1": 0.75}
    assert tell_evaluation(site, plan, again, 10) == {**again, "received/recall_at_1/d1": 0.25}
    plain = make_plan(small_state(tmp_path / "other", 2.0))
    assert tell_evaluation(site, plain, {"loss": 1.0}, 10) == {"loss": 1.0}
    assert len(kept(site)) == 1, "nothing is kept where nothing was validated"


@pytest.mark.parametrize(
    "numbers",
    [
        {"histogram_positive/mass/1100": 9.0},
        {"num_positive/mass": 9.0, "num_labelled/mass": 50.0},
        {"num_positive/mass": 41.0, "num_labelled/mass": 50.0},
        {"num_positive/mass": 20.0},
    ],
)
def test_a_number_of_too_few_patients_does_not_leave_even_if_the_worker_gives_it(
    tmp_path: Path, plan: Plan, numbers: dict[str, float]
) -> None:
    with pytest.raises(Refused, match="least_cell") as caught:
        tell_evaluation(tmp_path, plan, numbers, 10)
    assert caught.value.code is RefusalCode.POLICY
    assert not (tmp_path / "released-evaluations").exists()


def test_a_damaged_record_is_not_told_anew_without_a_person(tmp_path: Path, plan: Plan) -> None:
    tell_evaluation(tmp_path / "site", plan, TOLD, 10)
    (file,) = kept(tmp_path / "site")
    file.write_text("{}")
    with pytest.raises(Refused, match="released-evaluations") as caught:
        tell_evaluation(tmp_path / "site", plan, TOLD, 10)
    assert caught.value.code is RefusalCode.POLICY
