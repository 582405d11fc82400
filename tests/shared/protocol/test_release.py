"""What an update may hold: exactly the tensors that were asked for, finite, and numbers that the task declares."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from federation import METRICS, SMALL_SPEC, make_plan, small_state
from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.config.risk import RiskMiraiSettings
from mammofed_shared.config.sparse_autoencoder import SaeSettings
from mammofed_shared.config.tasks import TASKS
from mammofed_shared.config.text_adaptation import TextSettings
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.protocol import release
from mammofed_shared.protocol.payload import Payload, PayloadWriter, write_payload
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.protocol.release import check_metrics, check_tensors

EXPECTED = {name: (tensor.dtype, tensor.shape) for name, tensor in SMALL_SPEC.tensors.items()}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(small_state(tmp_path / "state"))


def _refusal(path: Path) -> RefusalCode:
    with Payload(path) as payload, pytest.raises(Refused) as caught:
        check_tensors(payload, EXPECTED)
    return caught.value.code


def test_an_update_that_is_right_passes(tmp_path: Path) -> None:
    small_state(tmp_path / "update", 2.0)
    with Payload(tmp_path / "update") as payload:
        check_tensors(payload, EXPECTED)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 11])
def test_one_value_that_is_not_finite_refuses_the_update(tmp_path: Path, value: float, place: int) -> None:
    weight = np.zeros((4, 3), np.float32)
    weight.reshape(-1)[place] = value
    small_state(tmp_path / "update", 2.0, **{"layer.weight": weight})
    assert _refusal(tmp_path / "update") is RefusalCode.NOT_FINITE


def test_every_block_of_a_large_tensor_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "_FINITE_BLOCK", 5)
    for place in range(12):
        weight = np.zeros((4, 3), np.float32)
        weight.reshape(-1)[place] = np.nan
        small_state(tmp_path / "update", 2.0, **{"layer.weight": weight})
        assert _refusal(tmp_path / "update") is RefusalCode.NOT_FINITE


@pytest.mark.parametrize(("bits", "finite"), [(0x7F80, False), (0xFFC0, False), (0x7F7F, True), (0xFF7F, True)])
def test_bfloat16_is_judged_by_its_exponent(tmp_path: Path, bits: int, finite: bool) -> None:
    with PayloadWriter(tmp_path / "file", {"a": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}) as writer:
        writer.write(np.array([bits], "<u2"))
    with Payload(tmp_path / "file") as payload:
        if finite:
            check_tensors(payload, {"a": ("BF16", (1,))})
        else:
            with pytest.raises(Refused, match="NOT_FINITE"):
                check_tensors(payload, {"a": ("BF16", (1,))})


def test_a_missing_tensor_refuses_the_update(tmp_path: Path) -> None:
    write_payload(tmp_path / "update", {"layer.weight": np.zeros((4, 3), np.float32)})
    assert _refusal(tmp_path / "update") is RefusalCode.TENSOR_NAMES


def test_numbers_inside_the_file_refuse_the_update(tmp_path: Path) -> None:
    """The next site receives this file: numbers go to the coordinator alone."""
    small_state(tmp_path / "update", 2.0)
    with Payload(tmp_path / "update") as payload:
        tensors = {name: np.array(payload[name]) for name in payload}
    write_payload(tmp_path / "update", tensors, {"loss": 1.0})
    assert _refusal(tmp_path / "update") is RefusalCode.METRIC_NOT_ALLOWED


def test_an_integer_tensor_needs_no_finite_check(tmp_path: Path) -> None:
    small_state(tmp_path / "update", **{"norm.num_batches_tracked": np.array(2**62, np.int64)})
    with Payload(tmp_path / "update") as payload:
        check_tensors(payload, EXPECTED)


def _names(declared: Iterable[str]) -> set[str]:
    """Names of every declared form."""
    return {name.replace("d#", "d16").replace("*", "mass").replace("#", "2000") for name in declared}


def test_every_declared_number_may_leave(plan: Plan) -> None:
    declared = dict.fromkeys(_names(TASKS["pretrain"].train_metrics), 1.0)
    assert {"num_exams", "received/recall_at_1/d16", "sent/auroc/mass/d16", "loss/d16"} <= set(declared)
    check_metrics(plan, declared)
    evaluation = plan.model_copy(update={"kind": "evaluate"})
    evaluated = dict.fromkeys(_names(TASKS["pretrain"].evaluate_metrics) - {"suppressed/mass"}, 1.0)
    check_metrics(evaluation, {**evaluated, "num_labelled/mass": 2.0, "suppressed/calcification": 1.0})


@pytest.mark.parametrize(
    "name",
    [
        "received/auroc/mass/d17",
        "received/auroc/mass/d0",
        "received/auroc/mass/d01",
        "received/auroc/mass/embed",
        "received/auroc/jane-doe/d1",
        "received/auroc/mass",
        "received/recall_at_1",
        "received/recall_at_2/d1",
        "received/recall_at_1/mass/d1",
        "received/histogram_positive/mass/1000",
        "kept/recall_at_1/d1",
        "recall_at_1/d1",
        "auroc/mass/d1",
        "loss/d17",
        "loss/d1/d2",
        "loss/d1/",
        "loss_image_text/d1",
        "received/auroc/*/d1",
        "received/auroc/mass/d#",
        "loss/d#",
        "loss/#",
    ],
)
def test_a_validation_number_of_any_other_form_is_refused(plan: Plan, name: str) -> None:
    check_metrics(plan, {**METRICS, "received/auroc/mass/d1": 0.5, "sent/recall_at_10/d2": 0.5, "loss/d1": 0.5})
    with pytest.raises(Refused, match="METRIC_NOT_ALLOWED"):
        check_metrics(plan, {**METRICS, name: 0.5})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data_wait", 1.1),
        ("received/recall_at_1/d1", -0.1),
        ("sent/auroc_low/mass/d1", 1.5),
        ("received/num_positive/mass/d1", 10.5),
        ("received/num_texts/d1", -1.0),
    ],
)
def test_a_value_that_the_number_cannot_have_is_refused(plan: Plan, name: str, value: float) -> None:
    check_metrics(plan, {**METRICS, name: 1.0})
    with pytest.raises(Refused, match="METRIC_NOT_ALLOWED"):
        check_metrics(plan, {**METRICS, name: value})


HISTOGRAMS = {
    "num_labelled/mass": 50.0,
    "num_positive/mass": 20.0,
    "histogram_positive/mass/1000": 0.0,
    "histogram_positive/mass/1100": 20.0,
    "histogram_negative/mass/900": 10.0,
    "histogram_negative/mass/2000": 20.0,
}


@pytest.mark.parametrize(
    "changed",
    [
        {"histogram_positive/mass/0": 0.0},
        {"histogram_positive/mass/2001": 0.0},
        {"histogram_positive/mass/01": 0.0},
        {"histogram_positive/mass/1.5": 0.0},
        {"histogram_positive/mass/-1": 0.0},
        {"histogram_positive/mass/": 0.0},
        {"histogram_positive/mass": 0.0},
        {"histogram_positive/mass/#": 0.0},
        {"histogram_positive/1000": 0.0},
        {"histogram_positive/asymmetry/1000": 0.0},
        {"histogram_other/mass/1000": 0.0},
        {"auroc/mass/1000": 0.0},
        {"histogram_positive/mass/1100": 19.5},
        {"histogram_positive/mass/1000": -5.0, "histogram_positive/mass/1100": 25.0},
        {"histogram_positive/mass/1000": 5.0},
        {"num_labelled/mass": 51.0},
        {"num_positive/mass": 21.0, "num_labelled/mass": 51.0},
        {"histogram_positive/mass/1100": float("nan")},
    ],
)
def test_a_histogram_that_is_not_whole_or_of_another_form_is_refused(plan: Plan, changed: dict[str, float]) -> None:
    evaluation = plan.model_copy(update={"kind": "evaluate"})
    check_metrics(evaluation, HISTOGRAMS)
    with pytest.raises(Refused, match="METRIC_NOT_ALLOWED"):
        check_metrics(evaluation, {**HISTOGRAMS, **changed})
    with pytest.raises(Refused, match="METRIC_NOT_ALLOWED"):
        check_metrics(plan, {**METRICS, **HISTOGRAMS})  # training tells none


def test_a_histogram_of_exams_that_are_not_counted_is_refused(plan: Plan) -> None:
    evaluation = plan.model_copy(update={"kind": "evaluate"})
    bare = {name: value for name, value in HISTOGRAMS.items() if not name.startswith("num_")}
    one_class = {name: value for name, value in HISTOGRAMS.items() if "histogram_negative" not in name}
    for numbers in (bare, one_class):
        with pytest.raises(Refused, match="histograms of mass"):
            check_metrics(evaluation, numbers)


def test_of_a_finding_that_is_not_told_nothing_is_told(plan: Plan) -> None:
    evaluation = plan.model_copy(update={"kind": "evaluate"})
    check_metrics(evaluation, {"suppressed/mass": 1.0, "auroc/calcification": 0.5, "num_exams": 5.0})
    for more in ({"suppressed/mass": 3.0}, {"num_labelled/mass": 5.0}, {"probe_auroc/mass": 0.5}):
        with pytest.raises(Refused, match="suppressed/mass"):
            check_metrics(evaluation, {"suppressed/mass": 1.0, **more})


@pytest.mark.parametrize(
    "metrics",
    [
        {"num_exams": 10.0, "patient_4711": 1.0},
        {"num_exams": 10.0, "auroc/mass": 0.9},  # evaluation's
        {"num_exams": 10.0, "loss": float("nan")},
        {"num_exams": 10.0, "loss": float("inf")},
        {"num_exams": float("nan")},
        {"num_exams": 0.0},
        {"num_exams": -1.0},
        {"loss": 1.0},
        {"num_exams": 10.0, "": 1.0},
        {"num_exams": 10.0, "loss/mass": 1.0},
    ],
)
def test_a_training_number_that_is_not_declared_or_not_finite_is_refused(plan: Plan, metrics: dict[str, float]) -> None:
    check_metrics(plan, METRICS)
    with pytest.raises(Refused) as caught:
        check_metrics(plan, metrics)
    assert caught.value.code is RefusalCode.METRIC_NOT_ALLOWED
    assert "4711" not in str(caught.value), "a name that the site made up is not repeated"


def test_an_evaluation_may_say_numbers_of_the_plans_findings_only(plan: Plan) -> None:
    evaluation = plan.model_copy(update={"kind": "evaluate", "task": PretrainSettings(findings=("mass",))})
    check_metrics(evaluation, {"auroc/mass": 0.9, "num_positive/mass": 3.0, "density_accuracy": 0.5})
    for name in ("auroc/calcification", "auroc/jane-doe", "auroc/", "auroc", "auroc/mass/4711", "loss"):
        with pytest.raises(Refused, match="METRIC_NOT_ALLOWED"):
            check_metrics(evaluation, {name: 0.9})


def test_text_adaptation_tells_its_own_numbers_and_none_of_a_finding(plan: Plan) -> None:
    text = plan.model_copy(update={"task": TextSettings()})
    numbers = {"num_exams": 8.0, "loss": 5.0, "loss/d1": 5.0, "mlm_loss": 4.0, "received/mlm_accuracy/d2": 0.5}
    evaluation = {"num_exams": 8.0, "mlm_loss": 4.0, "mlm_accuracy": 0.5, "pair_loss": 0.7, "pair_accuracy": 0.5}

    check_metrics(text, numbers)
    check_metrics(text.model_copy(update={"kind": "evaluate"}), evaluation)
    for name in ("temperature", "received/auroc/mass/d1", "mlm_loss/mass", "sent/mlm_loss", "pair_accuracy"):
        with pytest.raises(Refused, match="METRIC_NOT_ALLOWED"):
            check_metrics(text, {**numbers, name: 0.5})
    with pytest.raises(Refused, match="not between 0 and 1"):
        check_metrics(text, {**numbers, "received/mlm_accuracy/d2": 1.5})


def test_an_autoencoder_tells_its_levels_and_of_findings_what_reconstruction_changes(plan: Plan) -> None:
    training = plan.model_copy(update={"task": SaeSettings(levels=(64, 256))})
    evaluation = training.model_copy(update={"kind": "evaluate"})
    trained = {
        "num_exams": 8.0,
        "relative_error": 0.1,
        "silent_share": 0.2,
        "received/explained_variance/k64/d1": -3.5,
        "sent/dead_share/k256/d2": 0.5,
    }
    evaluated = {"explained_variance/k256": 1.0, "auroc/mass": 0.8, "auroc_change/mass/k64": -0.25}

    check_metrics(training, trained)
    check_metrics(evaluation, evaluated)
    for name in ("explained_variance/k64", "sent/dead_share/k65/d1", "sent/dead_share/k#/d1", "sent/loss/k64"):
        with pytest.raises(Refused, match="not on the list"):
            check_metrics(training, {**trained, name: 0.5})
    for name in ("explained_variance/k512", "auroc_change/k64/mass", "auroc_change/mass", "auroc_change/asymmetry/k64"):
        with pytest.raises(Refused, match="not on the list"):
            check_metrics(evaluation, {**evaluated, name: 0.5})
    for name, value in (("explained_variance/k64", 1.01), ("auroc_change/mass/k64", -1.01), ("dead_share/k64", 1.01)):
        with pytest.raises(Refused, match="METRIC_NOT_ALLOWED"):
            check_metrics(evaluation, {**evaluated, name: value})
    with pytest.raises(Refused, match="suppressed/mass"):
        check_metrics(evaluation, {"suppressed/mass": 1.0, "auroc_change/mass/k64": 0.0})


@pytest.fixture
def risk_plan(plan: Plan) -> Plan:
    """Of an evaluation of a risk head."""
    return plan.model_copy(update={"kind": "evaluate", "task": RiskMiraiSettings()})


RISK = {
    "num_exams": 300.0,
    "auroc/year5": 0.75,
    "num_positive/year5": 60.0,
    "num_labelled/year5": 200.0,
    "histogram_positive/year5/1700": 60.0,
    "histogram_negative/year5/1400": 140.0,
    "sensitivity90_low/year5": 0.3,
    "observed/year5/q10": 0.2,
    "auroc/year5/vendor-ims-giotto": 0.7,
    "suppressed/year5/age-under-40": 1.0,
    "suppressed/year1": 1.0,
    "c_index_high/outcome": 0.8,
    "auroc/proxy": 0.6,
    "num_exams/teacher": 100.0,
    "pearson_low/teacher/year1": -0.1,
}


def test_the_numbers_of_a_risk_may_leave(risk_plan: Plan) -> None:
    check_metrics(risk_plan, RISK)
    training = risk_plan.model_copy(update={"kind": "train"})
    check_metrics(training, {"num_exams": 8.0, "received/auroc/year1/d1": 0.5, "sent/num_positive/year5/d2": 10.0})


@pytest.mark.parametrize(
    "name",
    [
        "auroc/year6",
        "auroc/year",
        "auroc/mass",
        "auroc/density-a",
        "auroc/year5/density-e",
        "auroc/year5/vendor-st-elsewhere",
        "auroc/year5/age-53",
        "auroc/year5/density-a/vendor-ge",
        "auroc/year5/q3",
        "observed/year5/q11",
        "observed/year5/density-a",
        "brier/proxy",
        "c_index/year5",
        "pearson/year1",
        "histogram_positive/year5/density-a/1000",
        "received/auroc/year1/d1",
    ],
)
def test_a_number_of_a_risk_of_any_other_form_is_refused(risk_plan: Plan, name: str) -> None:
    with pytest.raises(Refused, match="METRIC_NOT_ALLOWED"):
        check_metrics(risk_plan, {**RISK, name: 0.5})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("brier/year5", 1.1),
        ("expected/year5/q10", -0.1),
        ("pearson/teacher/year2", -1.1),
        ("sensitivity80/year5", 1.01),
        ("num_labelled/year5/q10", 0.5),
        ("suppressed/proxy", 1.0),
        ("suppressed/year5", 1.0),
        ("suppressed/year5/vendor-ims-giotto", 1.0),
        ("suppressed/year2", 2.0),
        ("histogram_positive/year5/1800", 1.0),
    ],
)
def test_a_number_of_a_risk_that_cannot_be_is_refused(risk_plan: Plan, name: str, value: float) -> None:
    with pytest.raises(Refused, match="METRIC_NOT_ALLOWED"):
        check_metrics(risk_plan, {**RISK, name: value})
