"""Worker groups of every kind, as a site's parent starts them: they are killed and go on, and make one federation."""

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mammofed_server.run_state import RunState
from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.site import SiteSettings, WorkerSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.protocol.payload import Payload, reference_of
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.training.visit import initial_state
from mammofed_simulation.simulate import simulate, simulated
from mammofed_site.visit import Monitor, run_visit, visit_folder
from prepared import SMALL, TEXT_ENCODER, site_settings

TASK = PretrainSettings.model_validate(
    {
        "image_encoder": {
            "name": "mammofed_small_cnn",
            "weights": "none",
            "pooling": "avgmax",
            "activation_checkpointing": False,
            "batch_norm": "local",
        },
        "text_encoder": {"weights": "none", "max_tokens": 32, "activation_checkpointing": False},
        "projection_dim": 16,
        "optimizer": {"learning_rate": 2e-3},
        "batch_size": 4,
        "precision": "fp32",
    }
)


def site_with(folder: Path, site: str, seed: int, **worker: Any) -> SiteSettings:
    settings = site_settings(folder, site, seed)
    values = settings.worker.model_dump() | {"checkpoint_every_min": 0} | worker
    return settings.model_copy(update={"worker": WorkerSettings.model_validate(values)})


def plan_for(state: Path, site: str) -> Plan:
    return Plan(
        task_id=f"run/r0001/v00001/{site}/train",
        run="run",
        round=1,
        visit=1,
        site=site,
        kind="train",
        epochs=2,
        epochs_before=2,
        epochs_total=6,
        seed=9,
        task=TASK,
        preprocessing=SMALL.digest,
        text_encoder=folder_digest(TEXT_ENCODER),
        state=reference_of(state),
        configuration="0" * 64,
        rounds_total=2,
        num_sites=1,
    )


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kill_one(monitor: Monitor, at_step: int) -> None:
    """Kill the last process of the group that is at work, as soon as the visit is so far."""
    until = time.monotonic() + 120
    while monitor.progress.step < at_step and time.monotonic() < until:
        time.sleep(0.002)
    last = max(child.pid or 0 for child in multiprocessing.active_children())
    os.kill(last, signal.SIGKILL)


@pytest.mark.parametrize(
    "worker", [{}, {"processes": 2, "distribution": "ddp"}, {"processes": 2, "distribution": "zero-3"}]
)
def test_a_visit_that_is_killed_goes_on_with_the_next_step_and_ends_in_the_same_bits(
    tmp_path: Path, worker: dict[str, Any]
) -> None:
    state = tmp_path / "state.safetensors"
    initial_state(TASK, text_encoder=TEXT_ENCODER, seed=3, out=state)
    plan = plan_for(state, "mayo")
    undisturbed = run_visit(site_with(tmp_path / "one", "mayo", 1, **worker), plan, state, Monitor())
    cut = site_with(tmp_path / "two", "mayo", 1, **worker)
    folder = visit_folder(cut, plan.task_id)
    monitor = Monitor()
    watcher = threading.Thread(target=kill_one, args=(monitor, 3))

    watcher.start()
    with pytest.raises(VisitFailed) as failed:
        run_visit(cut, plan, state, monitor)
    watcher.join()

    assert failed.value.code is RefusalCode.WORKER_DIED
    assert (folder / "checkpoint.safetensors").exists()
    with Payload(folder / "checkpoint.safetensors") as kept:
        assert 1 <= kept.numbers["num_steps"] < 8
    result = run_visit(cut, plan, state, Monitor())
    assert "goes on after" in (cut.folder / "worker.log").read_text()
    for name in ("update.safetensors", "moments.safetensors", "metrics.json"):
        assert digest(result / name) == digest(undisturbed / name), name
    assert not (folder / "checkpoint.safetensors").exists()


def test_sites_of_every_hardware_make_one_federation(tmp_path: Path) -> None:
    # Small steps: AdamW's first ones go by the signs of gradients, which rounding turns where they are almost 0.
    frozen = TASK.model_dump() | {
        "image_encoder": TASK.image_encoder.model_dump() | {"batch_norm": "frozen"},
        "optimizer": {"learning_rate": 1e-5},
    }
    hardware: dict[str, dict[str, Any]] = {
        "central": {"processes": 2, "distribution": "zero-3", "micro_batch": 1},
        "mayo": {"processes": 2, "distribution": "ddp"},
        "emory": {},
    }

    def weights(name: str, workers: dict[str, dict[str, Any]]) -> tuple[RunState, dict[str, Any]]:
        settings = RunSettings.model_validate(
            {
                "run": "mixed",
                "consortium": "hospitals",
                "seed": 3,
                "sites": list(workers),
                "schedule": {"kind": "alternating", "rounds": 1},
                "evaluation": {"when": "never"},
                "preprocessing": SMALL.model_dump(),
                "task": frozen,
                "text_encoder": str(TEXT_ENCODER),
                "server": {"folder": str(tmp_path / name), "identity": str(tmp_path / "identity")},
                "tracking": {"enabled": False},
            }
        )
        sites = [
            site_with(tmp_path / name / site, site, seed, checkpoint_every_min=10, **worker)
            for seed, (site, worker) in enumerate(workers.items(), start=1)
        ]
        run = simulate(*simulated(settings, sites, tmp_path / name / "simulation"))
        with Payload(run.state_path(run.last_turn())) as payload:
            return run, {entry: payload[entry].copy() for entry in payload}

    mixed, found = weights("mixed", hardware)
    plain, expected = weights("plain", {site: {} for site in hardware})

    print("digest of the mixed federation:", mixed.manifest(3).state.digest)  # pytest -s shows it
    assert mixed.record.spec == plain.record.spec
    assert {name: (a.dtype, a.shape) for name, a in found.items()} == {
        name: (a.dtype, a.shape) for name, a in expected.items()
    }
    for turn, num_processes in ((1, 2), (2, 2), (3, 1)):
        [told] = mixed.manifest(turn).contributions
        [alone] = plain.manifest(turn).contributions
        assert told.metrics["num_processes"] == num_processes
        for name in ("loss", "loss_image_text", "grad_norm"):
            assert told.metrics[name] == pytest.approx(alone.metrics[name], rel=2e-3)
        assert told.update != mixed.manifest(turn - 1).state
        assert told.update == mixed.manifest(turn).state
    # As one process would have moved, up to the signs of the smallest gradients.
    with Payload(mixed.state_path(0)) as began:
        moved = {name: found[name] - began[name] for name in found if found[name].dtype == np.float32}
        wanted = {name: expected[name] - began[name] for name in moved}
    size = sum(float((array**2).sum()) for array in wanted.values())
    apart = sum(float(((moved[name] - wanted[name]) ** 2).sum()) for name in moved)
    assert size > 0
    assert apart < 0.1 * size
