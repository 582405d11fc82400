"""Tiny exports of runs that stand on a frozen model: random weights, nothing was trained."""

from pathlib import Path
from typing import Any

import torch

from mammofed_server.export import export_checkpoint
from mammofed_server.run_state import RunRecord, RunState
from mammofed_shared.config.frozen_encoder import encoder_digest, read_encoder
from mammofed_shared.protocol.payload import reference_of, write_payload
from mammofed_shared.protocol.task_spec import TaskSpec
from mammofed_shared.training.state import exchanged_arrays, tensor_specs
from mammofed_shared.training.tasks import code_of
from runs import small_run_settings

TASKS: dict[str, dict[str, Any]] = {
    "risk-mirai": {"width": 16, "num_layers": 1, "num_heads": 2},
    "risk-asymmirai": {"window": [2, 2], "stride": [1, 1]},
    "sae": {"num_neurons": 200, "levels": [8, 200]},
}


def write_export(folder: Path, task: str, encoder: Path, *, seed: int = 1, **settings: Any) -> Path:
    """Write an export of a run of this task to ``folder``/model, and give that path.

    Args:
        encoder: the frozen model.
        settings: lie over those of the task.
    """
    described = read_encoder(encoder)
    width = described.num_features if task == "risk-mirai" else described.num_channels
    run = small_run_settings(
        folder / "run",
        run=f"{task}-run",
        task={"name": task, "encoder_features": width, **TASKS[task], **settings},
        text_encoder=None,
        encoder=str(encoder),
    )
    torch.manual_seed(seed)
    model = code_of(run.task).build_model(run.task, None, True)
    state = folder / "first.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    write_payload(state, exchanged_arrays(model))
    spec = TaskSpec(task=task, weight_key="num_exams", tensors=tensor_specs(model))
    record = RunRecord(settings=run, spec=spec, encoder=encoder_digest(encoder))
    begun = RunState.begin(run.server.folder, record, state, reference_of(state))
    export_checkpoint(begun.checkpoint_folder(0), None, folder / "model")
    return folder / "model"
