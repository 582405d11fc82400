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


RISK = {
    "num_exams": 300.0,
    "auroc/year5": 0.75,
    "num_positive/year5": 60.0,
    "num_labelled/year5": 200.0,
    "auroc/year5/density-a": 0.7,
    "num_positive/year5/density-a": 30.0,
    "num_labelled/year5/density-a": 100.0,
    "observed/year5/q10": 0.2,
    "suppressed/year1": 1.0,
    "pearson/teacher/year1": 0.9,
}


def test_the_numbers_of_a_risk_are_told_together_or_not_at_all(tmp_path: Path, plan: Plan) -> None:
    """A year that is told later could be subtracted from those that were told before."""
    assert tell_evaluation(tmp_path, plan, RISK, 10) == RISK
    (file,) = kept(tmp_path)
    assert set(json.loads(file.read_text())["parts"]) == {"num_exams", "risk"}
    grown = {**RISK, "auroc/year1": 0.8, "num_positive/year1": 20.0, "num_labelled/year1": 220.0}
    del grown["suppressed/year1"]
    assert tell_evaluation(tmp_path, plan, grown, 10) == RISK


def test_a_risk_of_validation_is_told_together_for_each_data_set(tmp_path: Path, plan: Plan) -> None:
    training = plan.model_copy(update={"kind": "train"})
    first = {"received/auroc/year5/d1": 0.7, "sent/auroc/year5/d1": 0.8}
    assert tell_evaluation(tmp_path, training, first, 10) == first
    more = {**first, "received/auroc/year1/d1": 0.6, "received/auroc/year1/d2": 0.5}
    assert tell_evaluation(tmp_path, training, more, 10) == {**first, "received/auroc/year1/d2": 0.5}


@pytest.mark.parametrize(
    "changed",
    [
        {"num_positive/year5": 9.0},
        {"num_positive/year5/density-a": 91.0},
        {"num_positive/year5/density-a": 55.0},
        {"num_positive/year4": 58.0, "num_labelled/year4": 240.0},
        {"num_positive/year5/q10": 9.0, "num_labelled/year5/q10": 90.0},
    ],
)
def test_a_risk_of_too_few_is_refused_by_who_holds_the_policy(
    tmp_path: Path, plan: Plan, changed: dict[str, float]
) -> None:
    with pytest.raises(Refused, match="POLICY: num_positive/year"):
        tell_evaluation(tmp_path, plan, {**RISK, **changed}, 10)
    assert not (tmp_path / "released-evaluations").exists()
