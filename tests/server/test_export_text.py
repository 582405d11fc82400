"""The export of a text adaptation: what transformers loads, and what the pretraining after it begins with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mammofed_server.export import export_checkpoint
from mammofed_server.run_state import RunRecord, RunState
from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.config.text_adaptation import TextSettings
from mammofed_shared.config.text_encoder import folder_digest, locate_text_encoder
from mammofed_shared.protocol.payload import Payload, reference_of
from mammofed_shared.training import pretrain, text
from mammofed_shared.training.state import load_state
from mammofed_shared.training.visit import initial_state
from prepared import TEXT_ENCODER
from runs import small_run_settings

TASK = {"name": "text", "text_encoder": {"weights": "none", "max_tokens": 64, "activation_checkpointing": False}}
IDS = torch.tensor([[2, 10, 11, 12, 3], [2, 20, 21, 22, 3]])


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    initial_state(TextSettings.model_validate(TASK), text_encoder=TEXT_ENCODER, seed=1, out=path)
    return path


@pytest.fixture(scope="module")
def exported(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    settings = small_run_settings(folder, task=TASK)
    spec = initial_state(settings.task, text_encoder=TEXT_ENCODER, seed=1, out=folder / "first.safetensors")
    record = RunRecord(settings=settings, spec=spec, text_encoder=folder_digest(TEXT_ENCODER))
    run = RunState.begin(folder, record, state, reference_of(state))
    export_checkpoint(run.checkpoint_folder(0), TEXT_ENCODER, folder / "adapted")
    return folder / "adapted"


@pytest.fixture(scope="module")
def adapted(state: Path) -> text.TextAdaptation:
    model = text.build_model(TextSettings.model_validate(TASK), TEXT_ENCODER, False)
    load_state(model, state)
    return model.eval()


def test_transformers_gives_the_same_hidden_states_and_words(exported: Path, adapted: text.TextAdaptation) -> None:
    from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

    theirs = AutoModel.from_pretrained(exported / "text_encoder").eval()
    masked = AutoModelForMaskedLM.from_pretrained(exported / "text_encoder").eval()
    ones = torch.ones_like(IDS)
    with torch.no_grad():
        expected = adapted.text_encoder.hidden_states(IDS, ones)
        logits, _ = adapted.predictions(IDS, ones, torch.zeros_like(IDS))

        torch.testing.assert_close(theirs(IDS, attention_mask=ones).last_hidden_state, expected)
        torch.testing.assert_close(masked(IDS, attention_mask=ones).logits.flatten(0, 1), logits)
    assert AutoTokenizer.from_pretrained(exported / "text_encoder").mask_token == "[MASK]"


def test_pretraining_begins_with_the_adapted_encoder(exported: Path, adapted: text.TextAdaptation) -> None:
    settings = PretrainSettings.model_validate(
        {
            "image_encoder": {"name": "mammofed_small_cnn", "weights": "none", "activation_checkpointing": False},
            "text_encoder": {"weights": "folder", "max_tokens": 64},
            "projection_dim": 16,
        }
    )
    folder = locate_text_encoder(exported / "text_encoder")

    begun = pretrain.build_model(settings, folder, True).text_encoder.state_dict()

    expected = adapted.text_encoder.state_dict()
    assert begun.keys() == expected.keys()
    assert all(torch.equal(begun[name], tensor) for name, tensor in expected.items())
    assert folder_digest(folder) != folder_digest(TEXT_ENCODER), "a run names the adapted files"


def test_another_adaptation_goes_on_with_the_encoder_and_its_head(exported: Path, adapted: text.TextAdaptation) -> None:
    settings = TextSettings.model_validate({**TASK, "text_encoder": {"weights": "folder"}})

    begun = text.build_model(settings, exported / "text_encoder", True).state_dict()

    for name, tensor in adapted.state_dict().items():
        assert torch.equal(begun[name], tensor) == (not name.startswith("pair_head")), name


def test_nothing_of_the_state_is_left_out_and_the_readme_says_what_to_do(exported: Path, state: Path) -> None:
    from safetensors.numpy import load_file

    heads = load_file(exported / "heads.safetensors")
    with Payload(state) as payload:
        encoder = {name for name in payload if name.startswith("text_encoder.")}
        assert encoder | set(heads) == set(payload)
        assert all(np.array_equal(array, payload[name]) for name, array in heads.items())
        assert len(load_file(exported / "text_encoder" / "model.safetensors")) == len(encoder) + 3
    assert {path.name for path in exported.iterdir()} == {
        "README.md", "heads.safetensors", "manifest.json", "text_encoder",
    }  # fmt: skip
    assert "name it in their\nYAML as `text_encoder`" in (exported / "README.md").read_text()
