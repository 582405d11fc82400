"""A tiny frozen model in the form in which `fl-server export` writes one: random weights, nothing was trained."""

from pathlib import Path
from typing import Any

import torch

from mammofed_server.export import export_checkpoint
from mammofed_server.run_state import RunRecord, RunState
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.models.batch_norm import batch_norms
from mammofed_shared.protocol.payload import reference_of, write_payload
from mammofed_shared.protocol.task_spec import TaskSpec
from mammofed_shared.training import pretrain
from mammofed_shared.training.state import exchanged_arrays, tensor_specs
from prepared import TEXT_ENCODER
from runs import small_run_settings


def write_frozen_encoder(folder: Path, *, seed: int = 1, pooling: str = "avgmax", **replaced: Any) -> Path:
    """Write an export of a pretraining run of ``mammofed_small_cnn`` to ``folder``/model, and give that path.

    Its maps tell images apart, though nothing was trained: the statistics and gains of its layers are drawn.

    Args:
        replaced: lays other top-level settings over those of the run, such as ``preprocessing``.
    """
    task = {
        "name": "pretrain",
        "image_encoder": {
            "name": "mammofed_small_cnn",
            "weights": "none",
            "pooling": pooling,
            "activation_checkpointing": False,
        },
        "text_encoder": {"weights": "none", "max_tokens": 64, "activation_checkpointing": False},
        "projection_dim": 16,
    }
    settings = small_run_settings(folder / "run", task=task, **replaced)
    torch.manual_seed(seed)
    model = pretrain.build_model(settings.task, TEXT_ENCODER, True)  # type: ignore[arg-type]  # a pretraining task
    for layer in batch_norms(model.image_encoder):
        torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
        torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]  # it has statistics
        torch.nn.init.normal_(layer.running_mean, 0.0, 0.1)  # type: ignore[arg-type]
    state = folder / "first.safetensors"
    write_payload(state, exchanged_arrays(model))
    spec = TaskSpec(task="pretrain", weight_key="num_exams", tensors=tensor_specs(model))
    record = RunRecord(settings=settings, spec=spec, text_encoder=folder_digest(TEXT_ENCODER))
    run = RunState.begin(settings.server.folder, record, state, reference_of(state))
    export_checkpoint(run.checkpoint_folder(0), TEXT_ENCODER, folder / "model")
    return folder / "model"
