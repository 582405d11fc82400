"""The one gate out of a site: exactly the tensors that came, and numbers that the task declares; and its record."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict

import fake_workers
from bare_site import bare_site
from federation import METRICS, make_plan, small_state
from mammofed_shared.config.site import PolicySettings, SiteSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.protocol.flower import become_flower_task, plan_message, update_of
from mammofed_shared.protocol.payload import Payload, write_payload
from mammofed_shared.protocol.plan import Plan
from mammofed_site import app as app_module
from mammofed_site import released_counts, visit
from mammofed_site.app import SITE_KEY, app
from mammofed_site.audit import Audit
from mammofed_site.egress import release
from prepared import SMALL, TEXT_ENCODER
from small_counts import COUNTS, TOLD


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(small_state(tmp_path / "state"))


def _refusal(plan: Plan, folder: Path, metrics: dict[str, float]) -> RefusalCode:
    with pytest.raises(Refused) as caught:
        release(plan, folder / "state", folder / "update", metrics)
    return caught.value.code


def test_an_update_that_is_right_leaves_as_it_is(tmp_path: Path, plan: Plan) -> None:
    reference = small_state(tmp_path / "update", 2.0)
    update = release(plan, tmp_path / "state", tmp_path / "update", METRICS)
    assert (update.task_id, update.payload, update.metrics) == (plan.task_id, reference, METRICS)


@pytest.mark.parametrize(
    ("replaced", "code"),
    [
        ({"images": np.zeros((2, 64, 40), np.uint8)}, RefusalCode.TENSOR_NAMES),
        ({"layer.weight": np.zeros((5, 3), np.float32)}, RefusalCode.TENSOR_SHAPE),
        ({"layer.weight": np.zeros((4, 3), np.int32)}, RefusalCode.TENSOR_DTYPE),
        ({"norm.running_mean": np.array([1, 2, np.inf, 4], np.float32)}, RefusalCode.NOT_FINITE),
    ],
)
def test_other_tensors_than_came_do_not_leave(
    tmp_path: Path, plan: Plan, replaced: dict[str, object], code: RefusalCode
) -> None:
    small_state(tmp_path / "update", 2.0, **replaced)
    assert _refusal(plan, tmp_path, METRICS) is code


def test_a_tensor_that_is_missing_is_seen_before_anything_leaves(tmp_path: Path, plan: Plan) -> None:
    write_payload(tmp_path / "update", {"layer.weight": np.zeros((4, 3), np.float32)})
    assert _refusal(plan, tmp_path, METRICS) is RefusalCode.TENSOR_NAMES


@pytest.mark.parametrize("metrics", [{"mean_age": 61.0}, {"loss": float("nan")}, {"num_exams": float("inf")}])
def test_a_number_that_is_not_declared_or_not_finite_does_not_leave(
    tmp_path: Path, plan: Plan, metrics: dict[str, float]
) -> None:
    small_state(tmp_path / "update", 2.0)
    assert _refusal(plan, tmp_path, {**METRICS, **metrics}) is RefusalCode.METRIC_NOT_ALLOWED


def test_numbers_inside_the_payload_do_not_leave(tmp_path: Path, plan: Plan) -> None:
    small_state(tmp_path / "plain", 2.0)
    with Payload(tmp_path / "plain") as payload:
        write_payload(tmp_path / "update", {name: np.array(payload[name]) for name in payload}, {"mean_age": 61.0})
    assert _refusal(plan, tmp_path, METRICS) is RefusalCode.METRIC_NOT_ALLOWED


def test_an_evaluation_leaves_as_numbers_only(tmp_path: Path) -> None:
    plan = make_plan(small_state(tmp_path / "state"), kind="evaluate")
    update = release(plan, tmp_path / "state", None, {"auroc/mass": 0.9})
    assert (update.payload, update.metrics) == (None, {"auroc/mass": 0.9})
    with pytest.raises(Refused, match="METRIC_NOT_ALLOWED"):
        release(plan, tmp_path / "state", None, {"auroc/patient-4711": 0.9})


def test_a_query_leaves_as_protected_counts_only(tmp_path: Path) -> None:
    plan = make_plan(None, kind="query")
    assert release(plan, None, None, TOLD).metrics == TOLD
    for exact in ({"num_images": 252.0}, {"num_images_by_vendor/ge": 84.0}, {"num_images_by_vendor/jane-doe": 5.0}):
        with pytest.raises(Refused, match="METRIC_NOT_ALLOWED"):
            release(plan, None, None, {**TOLD, **exact})


# ── through the whole ClientApp ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteSettings:
    monkeypatch.setattr(visit, "worker_entry", fake_workers.ENTRY)
    return bare_site(tmp_path / "site")


def _ask(settings: SiteSettings, plan: Plan, state: Path | None) -> Message:
    become_flower_task()
    right = {"preprocessing": SMALL.digest, "text_encoder": folder_digest(TEXT_ENCODER)}
    config = {SITE_KEY: settings.model_dump_json()}
    context = Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})
    return app(plan_message(plan.model_copy(update=right), state, node_id=1), context)


def _events(settings: SiteSettings) -> list[dict[str, object]]:
    return [json.loads(line) for line in (settings.folder / "audit.jsonl").read_text().splitlines()]


def _trained(tensors: object, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let ``run_visit`` find a result that is already there."""
    small_state(folder / "result/update.safetensors", 2.0, **(tensors or {}))  # type: ignore[dict-item]
    (folder / "result/metrics.json").write_text(json.dumps({"num_exams": 10.0, "loss": 1.5}))
    monkeypatch.setattr(app_module, "run_visit_again", lambda *_: folder / "result")


def test_what_leaves_is_in_the_audit_record_before_it_leaves(
    tmp_path: Path, settings: SiteSettings, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    _trained(None, monkeypatch, tmp_path)
    update, path = update_of(_ask(settings, plan, tmp_path / "state"))
    assert path is not None and update.payload is not None
    permitted, released = _events(settings)
    assert (permitted["event"], permitted["state"]) == ("permitted", plan.state.digest)
    assert (released["event"], released["digest"]) == ("released", update.payload.digest)
    assert released["metrics"] == sorted(update.metrics) == ["duration_s", "loss", "num_exams"]


def test_a_query_is_answered_with_protected_counts_that_were_written_down_first(settings: SiteSettings) -> None:
    update, path = update_of(_ask(settings, make_plan(None, kind="query"), None))
    assert (update.metrics, update.payload, path) == (TOLD, None, None)
    permitted, counted, released = _events(settings)
    assert [event["event"] for event in (permitted, counted, released)] == ["permitted", "counted", "released"]
    assert (counted["data"], counted["least_cell"], counted["is_repeated"]) == (COUNTS.digest, 10, False)
    assert released["metrics"] == sorted(TOLD)


def test_equal_data_are_told_once_whatever_the_policy_is_by_then(settings: SiteSettings) -> None:
    first, _ = update_of(_ask(settings, make_plan(None, kind="query"), None))
    looser = settings.model_copy(update={"policy": PolicySettings(least_cell=2)})
    again, _ = update_of(_ask(looser, make_plan(None, kind="query").model_copy(update={"run": "another"}), None))
    assert again.metrics == first.metrics
    counted = _events(settings)[-2]
    assert (counted["event"], counted["least_cell"], counted["is_repeated"]) == ("counted", 10, True)


def test_a_model_is_evaluated_once_and_its_record_names_a_histogram_and_not_its_bins(
    tmp_path: Path, settings: SiteSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(small_state(tmp_path / "state"), kind="evaluate")
    told = {"num_positive/mass": 20.0, "num_labelled/mass": 50.0, "auroc/mass": 0.75}
    told |= {"histogram_positive/mass/1100": 20.0, "histogram_negative/mass/900": 10.0}
    told |= {"histogram_negative/mass/1000": 20.0}
    (tmp_path / "result").mkdir()
    monkeypatch.setattr(app_module, "run_visit_again", lambda *_: tmp_path / "result")
    answers = []
    for asked, area in ((plan, 0.75), (plan.model_copy(update={"run": "another"}), 0.7)):
        (tmp_path / "result/metrics.json").write_text(json.dumps({**told, "auroc/mass": area}))
        update, path = update_of(_ask(settings, asked, tmp_path / "state"))
        assert path is None
        answers.append({name: value for name, value in update.metrics.items() if name != "duration_s"})
    assert answers == [told, told]
    assert _events(settings)[-1]["metrics"] == [
        *("auroc/mass", "duration_s", "histogram_negative/mass/…", "histogram_positive/mass/…"),
        *("num_labelled/mass", "num_positive/mass"),
    ]


def test_counts_that_are_not_protected_do_not_leave(settings: SiteSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(released_counts, "protect", lambda *_: {**TOLD, "num_images": 252.0})
    reply = _ask(settings, make_plan(None, kind="query"), None)
    assert RefusalCode(reply.error.code) is RefusalCode.METRIC_NOT_ALLOWED
    assert _events(settings)[-1]["event"] == "failed"


def test_an_update_that_may_not_leave_becomes_a_code_and_is_not_kept(
    tmp_path: Path, settings: SiteSettings, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = visit.visit_folder(settings, plan.task_id)
    _trained({"layer.weight": np.full((4, 3), np.nan, np.float32)}, monkeypatch, folder)
    reply = _ask(settings, plan, tmp_path / "state")
    assert RefusalCode(reply.error.code) is RefusalCode.NOT_FINITE
    assert [event["event"] for event in _events(settings)] == ["permitted", "failed"]
    assert _events(settings)[-1]["code"] == "NOT_FINITE"
    assert not (folder / "result").exists(), "asked again, the site trains again"


def test_a_worker_that_is_killed_becomes_a_code(tmp_path: Path, settings: SiteSettings, plan: Plan) -> None:
    (tmp_path / "state").write_text("is killed")
    reply = _ask(settings, plan, tmp_path / "state")
    assert RefusalCode(reply.error.code) is RefusalCode.WORKER_DIED
    assert (reply.error.code, reply.error.reason) == (13, "WORKER_DIED"), "and no other word"


def test_a_plan_that_policy_refuses_starts_nothing(tmp_path: Path, settings: SiteSettings, plan: Plan) -> None:
    reply = _ask(settings, plan.model_copy(update={"site": "central"}), tmp_path / "state")
    assert RefusalCode(reply.error.code) is RefusalCode.POLICY
    assert not (settings.folder / "visits").exists()


def test_an_event_of_which_the_disk_takes_a_part_at_a_time_is_recorded_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    Audit(tmp_path).write("fetched", task="t", size=3)
    assert json.loads((tmp_path / "audit.jsonl").read_text())["size"] == 3


def test_the_audit_record_is_only_appended_to_and_private(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "site")
    audit.write("fetched", task="t", size=3)
    before = (tmp_path / "site/audit.jsonl").read_bytes()
    audit.write("released", task="t")
    after = (tmp_path / "site/audit.jsonl").read_bytes()
    assert after.startswith(before) and after.count(b"\n") == 2
    assert (tmp_path / "site/audit.jsonl").stat().st_mode & 0o777 == 0o600
    assert json.loads(before)["time"].endswith("Z")
