"""The first state of a run: from files that the lead brings, with a clear word where they cannot serve."""

from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from frozen_encoders import write_frozen_encoder
from mammofed_server import initial_worker
from mammofed_server.entries import entry_of
from mammofed_server.initial import begin_run
from mammofed_server.plans import PlanMaker
from mammofed_server.run_state import RunState
from mammofed_shared.config.frozen_encoder import encoder_digest
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.errors import ConfigurationError
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.protocol.task_spec import CONTROL
from prepared import TEXT_ENCODER
from runs import small_run_settings


def make_here(work: Path) -> bool:
    """In this process, which has torch loaded."""
    initial_worker.main(work)
    return True


def begin(folder: Path, task: dict[str, Any], text_encoder: str = str(TEXT_ENCODER)) -> RunState:
    return begin_run(small_run_settings(folder, task=task, text_encoder=text_encoder), make_here)


def pretraining(weights: Path) -> dict[str, Any]:
    image = {"name": "mammofed_small_cnn", "weights": str(weights), "activation_checkpointing": False}
    return {"name": "pretrain", "image_encoder": image, "text_encoder": {"weights": "none"}, "projection_dim": 16}


def test_a_run_begins_with_the_image_weights_that_the_lead_brings(tmp_path: Path) -> None:
    import mammofed_shared.models.small_cnn  # noqa: F401

    torch.manual_seed(5)
    save_file(timm.create_model("mammofed_small_cnn", num_classes=0).state_dict(), tmp_path / "own.safetensors")

    run = begin(tmp_path / "run", pretraining(tmp_path / "own.safetensors"))

    brought = load_file(tmp_path / "own.safetensors")
    with Payload(run.state_path(0)) as state:
        assert all(np.array_equal(state[f"image_encoder.model.{name}"], array) for name, array in brought.items())


def test_image_weights_that_are_not_there_end_the_start_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: image_encoder\.weights: expected none, imagenet, a \.safetensors"):
        begin(tmp_path / "run", pretraining(tmp_path / "imagnet"))
    assert not RunState.exists(tmp_path / "run")


def test_an_encoder_named_as_at_the_hub_is_the_runs_by_the_digest_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    snapshot = tmp_path / "hub" / "models--some--encoder" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("a" * 40)
    for file in TEXT_ENCODER.iterdir():
        (snapshot / file.name).symlink_to(file)
    save_file({}, snapshot / "model.safetensors")
    task = {"name": "text", "text_encoder": {"weights": "none"}}

    run = begin(tmp_path / "run", task, text_encoder="some/encoder")

    assert run.record.text_encoder == folder_digest(snapshot)
    assert run.record.settings.text_encoder == Path("some/encoder"), "the name stays what the lead wrote"
    assert run.record.spec.task == "text" and "masked_head.bias" in run.record.spec.tensors


def test_a_run_of_scaffold_begins_with_control_variates_of_nothing(tmp_path: Path) -> None:
    text = {"name": "text", "text_encoder": {"weights": "none"}}
    schedule = {"kind": "fedavg", "rounds": 1, "weighting": "equal", "strategy": {"name": "scaffold"}}
    folder = tmp_path / "scaffold"
    run = begin_run(small_run_settings(folder, task=text, text_encoder=str(TEXT_ENCODER), schedule=schedule), make_here)
    plain = begin(tmp_path / "plain", text)

    spec = run.record.spec.tensors
    parameters = {name for name, tensor in spec.items() if tensor.kind == "parameter"}
    assert {name for name, tensor in spec.items() if tensor.kind == "control"} == {
        CONTROL + name for name in parameters
    }
    assert dict(plain.record.spec.tensors) == {name: item for name, item in spec.items() if item.kind != "control"}
    with Payload(run.state_path(0)) as state, Payload(plain.state_path(0)) as without:
        assert set(state) == set(spec)
        assert all(np.array_equal(state[name], without[name]) for name in without)
        for name in parameters:
            assert state[CONTROL + name].shape == state[name].shape and not state[CONTROL + name].any()
    run.verify_last()
    assert not list((folder / "initial").glob("*.safetensors")), "the checkpoint holds the only file"


RISK = {"name": "risk-mirai", "encoder_features": 160, "width": 16, "num_layers": 1, "num_heads": 2}


def on_a_frozen_model(folder: Path, encoder: Path, **task: object) -> RunSettings:
    return small_run_settings(folder, task=RISK | task, text_encoder=None, encoder=str(encoder))


def test_a_run_keeps_the_digest_of_its_frozen_model_and_asks_each_site_for_it(tmp_path: Path) -> None:
    encoder = write_frozen_encoder(tmp_path / "encoder")
    settings = on_a_frozen_model(tmp_path / "run", encoder)

    run = begin_run(settings, make_here)

    assert run.record.encoder == run.manifest(0).encoder == encoder_digest(encoder)
    assert RunState.open(run.folder, settings).record == run.record
    plan = PlanMaker(run, run.schedule()).query("mayo")
    assert (plan.encoder, plan.text_encoder) == (run.record.encoder, None)
    assert entry_of(run, ("begun", 0))["encoder"] == run.record.encoder


def test_a_frozen_model_of_other_images_is_refused_before_the_run_begins(tmp_path: Path) -> None:
    other = PreprocessingSettings(height=64, width=40, window="voi")
    encoder = write_frozen_encoder(tmp_path / "encoder", preprocessing=other.model_dump())

    with pytest.raises(ConfigurationError, match=r"preprocessing: the model in .* was trained on images of other"):
        begin_run(on_a_frozen_model(tmp_path / "run", encoder), make_here)
    assert not RunState.exists(tmp_path / "run")


def test_a_run_that_expects_other_vectors_than_its_model_gives_is_refused_before_it_begins(tmp_path: Path) -> None:
    encoder = write_frozen_encoder(tmp_path / "encoder")

    with pytest.raises(ConfigurationError, match=r"task\.encoder_features: the run says 2048, .* of 160"):
        begin_run(on_a_frozen_model(tmp_path / "run", encoder, encoder_features=2048), make_here)
