"""Two hospitals train a risk head together over the frozen encoder: the apps of coordinator and sites, no network."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from frozen_encoders import write_frozen_encoder
from mammofed_server.export import export_checkpoint
from mammofed_server.run_state import RunState
from mammofed_shared.config.frozen_encoder import encoder_digest, read_encoder
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.site import WorkerSettings
from mammofed_shared.protocol.payload import Payload
from mammofed_simulation.simulate import simulate, simulated
from prepared import SMALL, site_settings

HEADS: dict[str, dict[str, Any]] = {
    "risk-mirai": {"width": 16, "num_layers": 1, "num_heads": 2},
    "risk-asymmirai": {"window": [2, 2], "stride": [1, 1]},
}
TENSORS = {
    "risk-mirai": {
        *(f"norm.{name}" for name in ("weight", "bias")),
        *(f"projection.{name}" for name in ("weight", "bias")),
        *(f"{name}_embedding.weight" for name in ("time", "view", "side")),
        *(f"embedding_projection.{name}" for name in ("weight", "bias")),
        *(f"transformer.layers.0.self_attn.in_proj_{name}" for name in ("weight", "bias")),
        *(
            f"transformer.{layer}.{name}"
            for layer in (
                *("layers.0.self_attn.out_proj", "layers.0.linear1", "layers.0.linear2"),
                *("layers.0.norm1", "layers.0.norm2", "norm"),
            )
            for name in ("weight", "bias")
        ),
        *(f"head.{layer}.{name}" for layer in ("hazard_fc", "base_hazard_fc") for name in ("weight", "bias")),
    },
    "risk-asymmirai": {"weights.CC", "weights.MLO", "log_scale", "first_offset", "offset_steps"},
}
"""All that is exchanged; nothing of the encoder is."""

ONE_PROCESS = WorkerSettings(device="cpu", threads=1, preprocess_workers=1)
WORKERS = {
    "central": ONE_PROCESS,
    "mayo": ONE_PROCESS.model_copy(update={"processes": 2, "distribution": "ddp", "micro_batch": 1}),
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frozen_encoder(tmp_path_factory.mktemp("encoder"))


def _finished(folder: Path, encoder: Path, task: str, kind: str) -> RunState:
    described = read_encoder(encoder)
    width = described.num_features if task == "risk-mirai" else described.num_channels
    run = RunSettings.model_validate(
        {
            "run": "risk",
            "consortium": "hospitals",
            "seed": 3,
            "sites": ["central", "mayo"],
            "schedule": {"kind": kind, "rounds": 1},
            "evaluation": {"when": "end"},
            "preprocessing": SMALL.model_dump(),
            "task": {
                "name": task,
                "encoder_features": width,
                "batch_size": 4,
                "optimizer": {"learning_rate": 1e-3, "warmup_epochs": 0},
                **HEADS[task],
            },
            "encoder": str(encoder),
            "server": {"folder": str(folder / "server"), "identity": str(folder / "identity")},
            "tracking": {"enabled": False},
        }
    )
    sites = [
        site_settings(folder / "hospitals" / site, site, seed).model_copy(update={"encoder": encoder, "worker": worker})
        for seed, (site, worker) in enumerate(WORKERS.items())
    ]
    return simulate(*simulated(run, sites, folder / "simulated"))


@pytest.mark.parametrize("kind", ["alternating", "fedavg"])
@pytest.mark.parametrize("task", HEADS)
def test_two_sites_train_a_head_and_only_its_weights_and_numbers_leave(
    task: str, kind: str, encoder: Path, tmp_path: Path
) -> None:
    digest = encoder_digest(encoder)

    finished = _finished(tmp_path, encoder, task, kind)

    turns = {"alternating": (1, 2), "fedavg": (1,)}[kind]
    assert finished.last_turn() == turns[-1]
    told = [item for turn in turns for item in finished.manifest(turn).contributions]
    assert [item.site for item in told] == ["central", "mayo"]
    for item in told:
        assert item.metrics["num_exams"] == item.metrics["num_with_teacher"] == 8 and item.metrics["num_steps"] == 2
        losses = [item.metrics[name] for name in ("loss", "loss_distillation", "loss_outcome")]
        assert np.isfinite(losses).all() and losses[0] == pytest.approx((losses[1] + losses[2]) / 2)
    with Payload(finished.state_path(0)) as before, Payload(finished.state_path(turns[-1])) as after:
        assert set(after) == {f"head.{name}" for name in TENSORS[task]}
        assert {name for name in after if np.array_equal(before[name], after[name])} == set()
    evaluated = json.loads((finished.folder / f"evaluations/{turns[-1]:05d}.json").read_text())["metrics"]
    assert [numbers["num_exams"] for numbers in evaluated.values()] == [6, 6]
    assert 0 <= evaluated["mayo"]["auroc_low/year3"] <= evaluated["mayo"]["auroc/year3"] <= 1
    assert encoder_digest(encoder) == digest, "the folder of the frozen model is as it was"
    _check_export(finished, tmp_path / "export", task)


def _check_export(finished: RunState, output: Path, task: str) -> None:
    export_checkpoint(finished.checkpoint_folder(finished.last_turn()), None, output)
    exported = load_file(output / "heads.safetensors")
    assert set(exported) == {f"head.{name}" for name in TENSORS[task]}
    assert not (output / "image_encoder").exists()
