"""Runs of a model of three small tensors, for tests of the coordinator that train nothing."""

from pathlib import Path
from typing import Any

from federation import SMALL_SPEC, small_state
from mammofed_server.run_state import RunRecord, RunState
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.text_encoder import folder_digest
from prepared import SMALL, TEXT_ENCODER


def small_run_settings(folder: Path, **replaced: Any) -> RunSettings:
    """Settings of run `test` over `central` and `mayo`; ``replaced`` lays other top-level values over them."""
    values: dict[str, Any] = {
        "run": "test",
        "consortium": "hospitals",
        "sites": ["central", "mayo"],
        "schedule": {"kind": "alternating", "rounds": 2},
        "evaluation": {"when": "never"},
        "preprocessing": SMALL.model_dump(),
        "task": {"name": "pretrain"},
        "text_encoder": str(TEXT_ENCODER),
        "server": {"folder": str(folder), "identity": str(folder / "identity")},
        "tracking": {"enabled": False},
    }
    return RunSettings.model_validate({**values, **replaced})


def begin_small_run(folder: Path, **replaced: Any) -> RunState:
    """Begin such a run with a state of ``SMALL_SPEC`` whose values are 1."""
    settings = small_run_settings(folder, **replaced)
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "first.safetensors"
    reference = small_state(state)
    record = RunRecord(settings=settings, spec=SMALL_SPEC, text_encoder=folder_digest(TEXT_ENCODER))
    run = RunState.begin(folder, record, state, reference)
    state.unlink()
    return run
