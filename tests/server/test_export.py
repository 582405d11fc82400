"""An exported checkpoint: timm and transformers load it without our code, tensor for tensor."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mammofed_server import export
from mammofed_server.export import export_checkpoint
from mammofed_server.run_state import RunRecord, RunState
from mammofed_shared.checkpoint import STATE_FILE
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.errors import CheckpointError, StateError
from mammofed_shared.protocol.payload import Payload, reference_of
from prepared import TEXT_ENCODER
from runs import begin_small_run, small_run_settings

TASK = {
    "name": "pretrain",
    "image_encoder": {"name": "tf_efficientnet_lite0", "weights": "none", "activation_checkpointing": False},
    "text_encoder": {"weights": "none", "max_tokens": 64},
    "projection_dim": 16,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first checkpoint of a run with a real timm encoder and the demo's text encoder."""
    from mammofed_shared.training.visit import initial_state

    folder = tmp_path_factory.mktemp("run")
    settings = small_run_settings(folder, task=TASK)
    state = folder / "first.safetensors"
    spec = initial_state(settings.task, text_encoder=TEXT_ENCODER, seed=1, out=state)
    record = RunRecord(settings=settings, spec=spec, text_encoder=folder_digest(TEXT_ENCODER))
    return RunState.begin(folder, record, state, reference_of(state)).checkpoint_folder(0)


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("export") / "model"
    export_checkpoint(checkpoint, TEXT_ENCODER, output)
    return output


@pytest.fixture
def state(checkpoint: Path) -> Iterator[Payload]:
    with Payload(checkpoint / STATE_FILE) as payload:
        yield payload


def _assert_same(module: Any, state: Payload, prefix: str) -> None:
    found = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    expected = {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
    assert found.keys() == expected.keys()
    assert len(found) > 10
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


def test_timm_loads_the_image_encoder(exported: Path, state: Payload) -> None:
    import timm

    model = timm.create_model(f"local-dir:{exported / 'image_encoder'}", pretrained=True)
    _assert_same(model, state, "image_encoder.model.")
    assert model.pretrained_cfg["input_size"] == (3, 64, 40) or model.pretrained_cfg["input_size"] == [3, 64, 40]


def test_transformers_loads_the_text_encoder_and_its_tokenizer(exported: Path, state: Payload) -> None:
    from transformers import AutoModel, AutoTokenizer

    _assert_same(AutoModel.from_pretrained(exported / "text_encoder"), state, "text_encoder.model.")
    ours, theirs = (AutoTokenizer.from_pretrained(path) for path in (TEXT_ENCODER, exported / "text_encoder"))
    text = "There is a spiculated mass in the left breast."
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]


def test_the_rest_is_the_projections_and_the_temperature(exported: Path, state: Payload) -> None:
    from safetensors.numpy import load_file

    rest = load_file(exported / "projections.safetensors")
    assert set(rest) == {"image_projection.weight", "text_projection.weight", "log_scale"}
    for name, array in rest.items():
        assert np.array_equal(array, state[name])
    exported_names = sum(name.startswith(("image_encoder.model.", "text_encoder.model.")) for name in state)
    assert exported_names + len(rest) == len(state.entries), "nothing is left out"


def test_the_intensities_are_those_of_the_image_encoder() -> None:
    from mammofed_shared.models import image_encoder

    assert export.INTENSITY_MEAN == image_encoder.INTENSITY_MEAN
    assert export.INTENSITY_STD == image_encoder.INTENSITY_STD


def test_the_export_says_how_it_came_to_be(exported: Path, checkpoint: Path) -> None:
    assert (exported / "manifest.json").read_bytes() == (checkpoint / "manifest.json").read_bytes()
    readme = (exported / "README.md").read_text()
    assert json.loads((exported / "manifest.json").read_text())["state"]["digest"] in readme
    assert "not for clinical use" in readme


def test_a_folder_that_exists_is_not_written_over(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="--output"):
        export_checkpoint(checkpoint, TEXT_ENCODER, tmp_path)


def test_another_text_encoder_than_the_runs_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "encoder"
    other.mkdir()
    (other / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="expected digest"):
        export_checkpoint(checkpoint, other, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_damaged_checkpoint_is_not_exported(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path / "run")
    with run.state_path(0).open("r+b") as file:
        file.truncate(50)
    with pytest.raises(CheckpointError, match="expected state"):
        export_checkpoint(run.checkpoint_folder(0), TEXT_ENCODER, tmp_path / "model")
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]
