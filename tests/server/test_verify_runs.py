"""`fl-server verify` on runs of every kind: what it computes again, what it says that it cannot, and a coordinator that
lies with its own key."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from rich.console import Console

from federation import SMALL_SPEC, small_state
from identities import Consortium, make_consortium
from mammofed_server import ledger as ledger_module
from mammofed_server import mailbox, strategies
from mammofed_server.attendance import Attendance
from mammofed_server.entries import Key, entry_of
from mammofed_server.run_state import EvaluationRecord, RunState
from mammofed_server.verify import Report, verify_run
from mammofed_server.verify_report import print_report
from mammofed_shared import checkpoint, seal
from mammofed_shared.checkpoint import Contribution
from mammofed_shared.errors import RefusalCode
from mammofed_shared.ledger import FILE
from mammofed_shared.protocol.flower import update_of
from mammofed_shared.protocol.plan import PayloadReference, Plan, Update
from runs import CONTROLLED_SPEC, controls_of
from signed_runs import SignedRun, make_signed_run

KEPT = {"keep_updates": True}
THREE = ["central", "emory", "mayo"]
BF16_AND_DELTA = {"download": "bf16", "upload": "delta"}


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return make_consortium(tmp_path_factory.mktemp("consortium"), THREE)


def _verify(run: SignedRun) -> Report:
    return verify_run(run.folder, run.consortium.root_fingerprint, [path / FILE for path in run.sites.values()])


def _tampered(run: SignedRun) -> list[str]:
    return [f"{item.where}: {item.what}" for item in _verify(run).findings if item.severity == "tampered"]


def _printed(report: Report) -> str:
    console = Console(width=200, file=io.StringIO())
    print_report(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _fedavg(strategy: dict[str, Any] | None = None, **phase: Any) -> dict[str, Any]:
    return {"kind": "fedavg", "rounds": 2, "strategy": strategy or {"name": "fedavg"}, **phase}


ALTERNATING = {"kind": "alternating", "rounds": 1}

# ── computed again ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "strategy",
    [
        {"name": "fedavg", "clip_norm": 1.5},
        {"name": "fedprox", "mu": 0.1},
        {"name": "fedyogi", "server_learning_rate": 0.1},
        {"name": "scaffold"},
        {"name": "trimmed-mean", "trim": 0.34},
    ],
    ids=lambda strategy: str(strategy["name"]),
)
def test_the_mean_of_each_strategy_is_computed_again(
    tmp_path: Path, consortium: Consortium, strategy: dict[str, Any]
) -> None:
    spec = CONTROLLED_SPEC if strategy["name"] == "scaffold" else SMALL_SPEC
    weighting = {"weighting": "equal"} if strategy["name"] in ("scaffold", "trimmed-mean") else {}
    schedule = _fedavg(strategy, **weighting)
    run = make_signed_run(tmp_path, consortium, spec=spec, schedule=schedule, sites=THREE, checkpoints=KEPT)
    report = _verify(run)
    assert (report.verdict, report.findings, report.ending) == ("whole", [], "finished")
    assert (report.num_means, report.num_folded) == (2, 2)
    kept = run.folder / "checkpoints/00002/updates/emory.safetensors"
    kept.unlink()  # the spool's file has the same bytes
    other = {"layer.weight": np.arange(12, dtype=np.float32).reshape(4, 3), **controls_of(spec, 0.25)}
    small_state(kept, 5.0, **other)
    told = _tampered(run)
    assert any(item.startswith("checkpoints/00002: its updates give another state.safetensors") for item in told), told


@pytest.mark.parametrize("schedule", [ALTERNATING, _fedavg()], ids=["alternating", "fedavg"])
def test_what_travelled_encoded_is_encoded_and_decoded_again(
    tmp_path: Path, consortium: Consortium, schedule: dict[str, Any]
) -> None:
    run = make_signed_run(tmp_path, consortium, schedule=schedule, transfer=BF16_AND_DELTA, checkpoints=KEPT)
    report = _verify(run)
    assert (report.verdict, report.findings) == ("whole", [])
    num_visits = sum(len(run.run.manifest(turn).contributions) for turn in (1, 2))
    assert (report.num_decoded, report.num_encoded) == (num_visits, 3)
    assert report.contributors[0].filters == ["encoded-delta"]
    assert f"{num_visits} of {num_visits} encoded updates decoded again" in _printed(report)


def test_means_that_cannot_be_computed_again_are_counted(tmp_path: Path, consortium: Consortium) -> None:
    run = make_signed_run(tmp_path, consortium, schedule=_fedavg(), transfer=BF16_AND_DELTA)
    report = _verify(run)
    assert (report.verdict, report.num_means, report.num_folded) == ("whole", 0, 2)
    assert "0 of 2 means computed again" in _printed(report) and "0 of 4 encoded updates decoded" in _printed(report)
    assert "`checkpoints.keep_updates` keeps them" in _printed(report)


# ── who was missing, who joined, who left ───────────────────────────────────────────────────────────────────────


def test_a_run_with_skipped_visits_is_whole_and_its_mean_is_of_those_that_came(
    tmp_path: Path, consortium: Consortium
) -> None:
    def act(run: RunState, plan: Plan) -> RefusalCode | None:
        fails = plan.site == "mayo" and plan.round == 1 and plan.kind == "train"
        return RefusalCode.OUT_OF_MEMORY if fails else None

    run = make_signed_run(
        tmp_path, consortium, on_plan=act, schedule=_fedavg(), checkpoints=KEPT, on_failure="skip", quorum=1
    )
    report = _verify(run)
    assert (report.verdict, report.findings, report.num_means) == ("whole", [], 2)
    told = sorted((item.site, item.num_visits, item.num_failed) for item in report.contributors)
    assert told == [("central", 2, 0), ("mayo", 1, 1)]


def test_a_run_that_is_called_finished_without_its_quorum_is_seen(
    tmp_path: Path, consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(run: RunState, plan: Plan) -> RefusalCode | None:
        return RefusalCode.OUT_OF_MEMORY if plan.site == "mayo" and plan.kind == "train" else None

    with monkeypatch.context() as lying:
        lying.setattr(Attendance, "can_spare", lambda self, task_id=None: True)
        run = make_signed_run(tmp_path, consortium, on_plan=act, schedule=_fedavg(), on_failure="skip", quorum=2)

    assert _tampered(run) == [
        f"{FILE}: round 1 has fewer sites than its quorum, so run {run.run.record.settings.run} is not finished"
    ]


def test_a_run_that_a_site_joined_left_and_joined_again_is_whole(tmp_path: Path, consortium: Consortium) -> None:
    def act(run: RunState, plan: Plan) -> RefusalCode | None:
        if plan.site == "central" and plan.kind == "train" and plan.round in (2, 3):
            run.members().ask("emory", {2: "leave", 3: "join"}[plan.round])  # type: ignore[arg-type]
        return None

    schedule = {**_fedavg(), "rounds": 4}
    run = make_signed_run(
        tmp_path, consortium, on_plan=act, newcomers=("emory",), schedule=schedule, checkpoints=KEPT, quorum=1
    )
    members = [run.run.members().of_round(number) for number in range(1, 5)]
    assert "emory" in members[1] and "emory" not in members[2] and "emory" in members[3]
    report = _verify(run)
    assert (report.verdict, report.findings, report.num_means) == ("whole", [], 4)
    told = sum(len(set(line)) for line in members)
    evaluated = 2 + told  # the first state by those who began
    assert report.num_statements == 4 + told + evaluated, "two sites were asked, and emory twice; each counts once"


# ── a coordinator that lies with its own key ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("schedule", [ALTERNATING, _fedavg()], ids=["alternating", "fedavg"])
def test_an_update_that_its_site_has_not_signed_is_seen(
    tmp_path: Path, consortium: Consortium, monkeypatch: pytest.MonkeyPatch, schedule: dict[str, Any]
) -> None:
    def forged(reply: Message) -> tuple[Update, Path | None]:
        update, path = update_of(reply)
        if path is None or "/mayo/" not in update.task_id:
            return update, path
        small_state(tmp_path / "forged", 9.0)
        return update, tmp_path / "forged"

    monkeypatch.setattr(strategies, "update_of", forged)
    monkeypatch.setattr(checkpoint, "seal_file", lambda path, sha256=None: seal.seal_file(path))
    run = make_signed_run(tmp_path, consortium, schedule=schedule, checkpoints=KEPT)
    told = _tampered(run)
    assert any("updates/mayo.safetensors: it is sealed, but it is not the file" in item for item in told), told
    is_adopted = schedule["kind"] == "alternating"
    assert any("state.safetensors: it is sealed, but" in item for item in told) == is_adopted, told


def test_numbers_that_their_site_has_not_signed_are_seen(
    tmp_path: Path, consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    def more_exams(**fields: Any) -> Contribution:
        fields["metrics"] = {**fields["metrics"], "num_exams": 5000.0}
        return Contribution(**fields)

    commit = RunState.commit_evaluation

    def better(self: RunState, record: EvaluationRecord) -> None:
        metrics = {site: {**numbers, "auroc/mass": 0.99} for site, numbers in record.metrics.items()}
        commit(self, record.model_copy(update={"metrics": metrics}))

    monkeypatch.setattr(strategies, "Contribution", more_exams)
    monkeypatch.setattr(RunState, "commit_evaluation", better)
    run = make_signed_run(tmp_path, consortium, schedule=ALTERNATING)
    told = _tampered(run)
    assert any("central: the statement says another num_exams than the ledger" in item for item in told), told
    assert any(item.startswith("checkpoints/00001/manifest.json: not the numbers that central") for item in told), told
    assert any(item.startswith("evaluations/00002.json: not the numbers that mayo") for item in told), told


def test_a_line_that_says_otherwise_than_the_manifest_is_seen(
    tmp_path: Path, consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    def heavier(run: RunState, key: Key) -> dict[str, Any]:
        entry = entry_of(run, key)
        if key[0] == "turn":
            entry["contributions"][0]["weight"] = 99.0
        return entry

    monkeypatch.setattr(ledger_module, "entry_of", heavier)
    run = make_signed_run(tmp_path, consortium, schedule=_fedavg(), checkpoints=KEPT)
    told = _tampered(run)
    assert any("manifest.json: it says another contributions.0.weight than the ledger" in item for item in told), told


@pytest.mark.parametrize("schedule", [ALTERNATING, _fedavg()], ids=["alternating", "fedavg"])
def test_what_was_not_made_of_the_update_that_was_sent_is_seen(
    tmp_path: Path, consortium: Consortium, monkeypatch: pytest.MonkeyPatch, schedule: dict[str, Any]
) -> None:
    def something_else(source: Path, target: Path, base: Path | None = None) -> PayloadReference:
        return small_state(target, 9.0)

    monkeypatch.setattr(mailbox, "decode", something_else)
    run = make_signed_run(tmp_path, consortium, schedule=schedule, transfer=BF16_AND_DELTA, checkpoints=KEPT)
    told = _tampered(run)
    assert any("checkpoints/00001/updates/central.safetensors: it is not what" in item for item in told), told
