"""Runs of a model of three small tensors, for tests of the coordinator that train nothing."""

from pathlib import Path
from typing import Any

import numpy as np

from federation import SMALL_SPEC, small_state
from mammofed_server.run_state import RunRecord, RunState
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.protocol.task_spec import CONTROL, TaskSpec, TensorSpec
from prepared import SMALL, TEXT_ENCODER

CONTROLLED_SPEC = SMALL_SPEC.model_copy(
    update={
        "tensors": {
            **SMALL_SPEC.tensors,
            f"{CONTROL}layer.weight": TensorSpec(shape=(4, 3), dtype="F32", kind="control"),
        }
    }
)
"""``SMALL_SPEC`` of a run of SCAFFOLD."""


def controls_of(spec: TaskSpec, value: float) -> dict[str, np.ndarray]:
    """The control variates of a spec, all of one value."""
    kinds = {name: item for name, item in spec.tensors.items() if item.kind == "control"}
    return {name: np.full(item.shape, value, np.float32) for name, item in kinds.items()}


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


def begin_small_run(folder: Path, spec: TaskSpec = SMALL_SPEC, **replaced: Any) -> RunState:
    """Begin such a run with a state of ``spec`` whose values are 1; control variates are 0."""
    settings = small_run_settings(folder, **replaced)
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "first.safetensors"
    reference = small_state(state, **controls_of(spec, 0.0))
    record = RunRecord(settings=settings, spec=spec, text_encoder=folder_digest(TEXT_ENCODER))
    run = RunState.begin(folder, record, state, reference)
    state.unlink()
    return run
