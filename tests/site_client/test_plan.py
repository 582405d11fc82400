"""`site-client plan`: what it asks, what it finds on a real worker, and how its word is held against the visit."""

import json
import math
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

import fake_workers
from bare_site import bare_site
from federation import make_plan
from frozen_encoders import write_frozen_encoder
from mammofed_shared.config.frozen_encoder import encoder_digest
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.site import SiteSettings, WorkerSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.errors import ConfigurationError, DataError
from mammofed_shared.protocol.payload import reference_of
from mammofed_shared.protocol.plan import PayloadReference, Plan
from mammofed_shared.training.visit import initial_state
from mammofed_site import visit
from mammofed_site.plan_command import last_plan, plan_of_run, plan_site, probe_site
from mammofed_site.prediction import last_outcome
from mammofed_site.visit import Monitor, make_order, run_visit, visit_folder
from prepared import SMALL, TEXT_ENCODER, site_settings
from runs import small_run_settings

TASK = {
    "name": "pretrain",
    "image_encoder": {
        "name": "mammofed_small_cnn",
        "weights": "none",
        "pooling": "avgmax",
        "activation_checkpointing": False,
    },
    "text_encoder": {"weights": "none", "max_tokens": 32, "activation_checkpointing": False},
    "projection_dim": 16,
    "batch_size": 4,
    "precision": "fp32",
}
TOLD_IN_WORDS = {"site", "run", "task", "device", "distribution", "precision", "last_visit", "warnings", "compile"}
TOLD_IN_WORDS |= {"features"}


def _run_file(folder: Path, **replaced: Any) -> Path:
    run = small_run_settings(folder, **{"task": TASK} | replaced)
    path = folder / "run.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(json.loads(run.model_dump_json())))
    return path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteSettings:
    """A site whose workers are fakes."""
    monkeypatch.setattr(visit, "worker_entry", fake_workers.ENTRY)
    return bare_site(tmp_path / "site")


def _behave(settings: SiteSettings, behaviour: str) -> None:
    (settings.folder / "behaviour").write_text(behaviour)


# ── on a real worker ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_probe_tells_all_figures_and_the_visit_says_how_far_off_they_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    settings = site_settings(tmp_path / "site", "mayo", seed=1)
    run = _run_file(tmp_path / "lead", schedule={"kind": "alternating", "rounds": 2, "epochs": 2})

    plan_site(settings, run, Console(), as_json=True)

    found = json.loads(capsys.readouterr().out)
    figures = {name: value for name, value in found.items() if name not in TOLD_IN_WORDS}
    assert all(math.isfinite(value) and value >= 0 for value in figures.values())
    assert {name for name, value in figures.items() if value == 0} == {"validation_s"}, "it has no validation exams"
    assert (found["steps_per_epoch"], found["epochs"], found["batch_size"], found["micro_batch"]) == (4, 2, 4, 4)
    assert found["step_s_low"] <= found["step_s"] <= found["step_s_high"]
    assert found["visit_h_low"] <= found["visit_h"] <= found["visit_h_high"]
    assert found["peak_memory_gb"] < found["memory_gb"]
    assert found["last_visit"] is None
    assert not (settings.folder / "probe").exists()

    plan, state = _visit_of(settings, run, tmp_path / "state.safetensors")
    with caplog.at_level("INFO", "mammofed_site.prediction"):
        run_visit(settings, plan, state, Monitor())
    assert f"task {plan.task_id}: predicted " in caplog.text and ", took " in caplog.text
    outcome = last_outcome(settings, plan)
    assert outcome is not None and outcome.predicted_s == pytest.approx(3600 * found["visit_h"])
    assert outcome.took_s > 0


def test_a_group_of_two_is_probed_as_a_group_of_two(tmp_path: Path) -> None:
    worker = WorkerSettings(device="cpu", threads=1, processes=2, distribution="ddp")
    settings = site_settings(tmp_path / "site", "mayo", seed=1).model_copy(update={"worker": worker})
    found = probe_site(settings, plan_of_run(settings, _run_file(tmp_path / "lead")))
    assert (found.processes, found.micro_batch, found.batch_size) == (2, 2, 4)
    assert found.step_s > 0 and 0 <= found.data_wait <= 1


def _visit_of(settings: SiteSettings, run: Path, state: Path) -> tuple[Plan, Path]:
    values = RunSettings.model_validate(yaml.safe_load(run.read_text()))
    initial_state(values.task, text_encoder=TEXT_ENCODER, seed=1, out=state)
    probed = plan_of_run(settings, run)
    return probed.model_copy(update={"task_id": "test/r0001/v00001/mayo/train", "state": reference_of(state)}), state


def test_a_run_on_a_frozen_model_is_planned_with_the_leads_folder_or_the_sites_own(
    bare: SiteSettings, tmp_path: Path
) -> None:
    leads, own = (write_frozen_encoder(tmp_path / name, seed=seed) for seed, name in enumerate(("leads", "own")))
    risk = {"task": {"name": "risk-mirai"}, "text_encoder": None}
    site = bare.model_copy(update={"encoder": own})

    here = plan_of_run(site, _run_file(tmp_path / "here", **risk, encoder=str(leads)))
    away = plan_of_run(site, _run_file(tmp_path / "away", **risk, encoder="/srv/of/the/lead"))

    assert (here.encoder, away.encoder) == (encoder_digest(leads), encoder_digest(own))
    assert here.encoder != away.encoder
    with pytest.raises(ConfigurationError, match="encoder: the run needs a frozen model, and /srv/of/the/lead is not"):
        plan_of_run(bare, tmp_path / "away" / "run.yaml")
    visit_folder(site, away.task_id).mkdir(parents=True)
    (visit_folder(site, away.task_id) / "visit.json").write_text(make_order(site, away, None).model_dump_json())
    assert last_plan(site).encoder == away.encoder


# ── which visit ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_leads_file_says_what_is_asked_of_this_site(bare: SiteSettings, tmp_path: Path) -> None:
    schedule = {"kind": "alternating", "rounds": 2, "order": ["mayo", "central", "mayo"], "epochs": [1, 5, 3]}
    plan = plan_of_run(bare, _run_file(tmp_path / "lead", schedule=schedule))
    assert (plan.run, plan.site, plan.kind, plan.epochs) == ("test", "mayo", "train", 3), "the longest visit"
    assert plan.task.model_dump(include=set(TASK)).items() >= {"batch_size": 4}.items()
    assert (plan.preprocessing, plan.text_encoder) == (SMALL.digest, folder_digest(TEXT_ENCODER))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"kind": "fedavg", "rounds": 2, "strategy": {"name": "fedprox", "mu": 0.5}}, (2, 0.5, False)),
        ({"kind": "fedavg", "rounds": 2, "weighting": "equal", "strategy": {"name": "scaffold"}}, (2, 0.0, True)),
        ({"rounds": 2, "phases": [{"rounds": 1}, {"kind": "fedavg"}]}, (1, 0.0, False)),
    ],
)
def test_a_probe_is_of_what_the_strategy_adds_and_of_the_smallest_fold(
    bare: SiteSettings, tmp_path: Path, schedule: dict[str, Any], expected: tuple[int, float, bool]
) -> None:
    plan = plan_of_run(bare, _run_file(tmp_path / "lead", schedule=schedule))
    assert (plan.num_sites, plan.proximal_mu, plan.control_variates) == expected


def test_a_run_that_does_not_train_here_is_an_error(bare: SiteSettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="mayo does not train in this run: central"):
        plan_of_run(bare, _run_file(tmp_path / "lead", sites=["central"]))


def _received(settings: SiteSettings, plan: Plan, age_s: float) -> None:
    path = visit_folder(settings, plan.task_id) / "visit.json"
    path.parent.mkdir(parents=True)
    path.write_text(make_order(settings, plan, None).model_dump_json())
    written_s = time.time() - age_s
    os.utime(path, (written_s, written_s))


def test_without_a_file_it_is_as_the_last_plan_that_came(bare: SiteSettings) -> None:
    with pytest.raises(ConfigurationError, match=r"no plan has come to this site yet: .*--run"):
        last_plan(bare)
    state = PayloadReference(digest="0" * 64, size=1)
    old = make_plan(state, visit=1).model_copy(update={"run": "old", "epochs": 9})
    trained = make_plan(state, visit=2).model_copy(update={"epochs": 4})
    evaluated = make_plan(state, visit=3, kind="evaluate").model_copy(update={"epochs": 0})
    for plan, age_s in ((trained, 20), (old, 30), (evaluated, 10)):
        _received(bare, plan, age_s)
    (visit_folder(bare, "test/r0001/v00009/mayo/train")).mkdir()
    (visit_folder(bare, "test/r0001/v00009/mayo/train") / "visit.json").write_text("of another version")

    plan = last_plan(bare)

    assert (plan.run, plan.kind, plan.epochs, plan.task) == ("test", "train", 4, evaluated.task)
    assert (plan.preprocessing, plan.text_encoder) == (evaluated.preprocessing, evaluated.text_encoder)


# ── what may go wrong ───────────────────────────────────────────────────────────────────────────────────────────


def test_data_that_are_prepared_otherwise_are_said(bare: SiteSettings, tmp_path: Path) -> None:
    run = _run_file(tmp_path / "lead", preprocessing={"height": 128, "width": 80})
    with pytest.raises(DataError, match="data set screening was prepared with other settings"):
        probe_site(bare, plan_of_run(bare, run))


def test_data_that_are_not_prepared_are_said(bare: SiteSettings, tmp_path: Path) -> None:
    plan = plan_of_run(bare, _run_file(tmp_path / "lead"))
    (bare.prepared_folder(bare.datasets[0]) / "preprocessing.json").unlink()
    with pytest.raises(DataError, match="a data set is not prepared: run `site-client preprocess`"):
        probe_site(bare, plan)


def test_out_of_memory_halves_the_micro_batch_of_the_probe_and_of_later_visits(
    bare: SiteSettings, tmp_path: Path
) -> None:
    plan = plan_of_run(bare, _run_file(tmp_path / "lead", task={**TASK, "batch_size": 16}))
    _behave(bare, "fits 5")

    found = probe_site(bare, plan)

    assert found.micro_batch == 4 and found.batch_size == 16
    assert any("ran out with 16 samples at once: each process computes 4" in text for text in found.warnings)
    assert make_order(bare, plan, None).worker.micro_batch == 4


def test_a_site_that_one_sample_does_not_fit_is_told(bare: SiteSettings, tmp_path: Path) -> None:
    plan = plan_of_run(bare, _run_file(tmp_path / "lead"))
    _behave(bare, "fits 0")
    with pytest.raises(ConfigurationError, match="OUT_OF_MEMORY"):
        probe_site(bare, plan)
    assert not (bare.folder / "prediction.json").exists()


def test_ctrl_c_ends_the_worker_group(bare: SiteSettings, tmp_path: Path) -> None:
    plan = plan_of_run(bare, _run_file(tmp_path / "lead"))
    _behave(bare, "never ends")
    pids: list[int] = []

    def interrupt() -> None:
        pid = bare.folder / "probe/pid"
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.02)
        pids.append(int(pid.read_text()))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        probe_site(bare, plan)
    thread.join()
    assert not Path(f"/proc/{pids[0]}").exists() or "\nState:\tZ" in Path(f"/proc/{pids[0]}/status").read_text()
    assert not (bare.folder / "probe").exists()
