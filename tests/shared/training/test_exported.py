"""The model of an export: read back as it was trained, and refused where it is of something else."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from exports import write_export
from frozen_encoders import write_frozen_encoder
from mammofed_shared.config.frozen_encoder import encoder_digest
from mammofed_shared.errors import ConfigurationError
from mammofed_shared.models.mirai import MiraiHead
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.training.exported import load_exported
from mammofed_shared.training.risk_model import RiskModel


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frozen_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Path:
    return write_export(tmp_path_factory.mktemp("mirai"), "risk-mirai", encoder, seed=5)


def test_the_model_has_the_weights_of_the_checkpoint(exported: Path, encoder: Path) -> None:
    found = load_exported(exported, ["risk-mirai"], encoder_digest(encoder))

    assert isinstance(found.model, RiskModel)
    assert isinstance(found.model.head, MiraiHead)
    assert not found.model.training
    assert not any(parameter.requires_grad for parameter in found.model.parameters())
    assert (found.run, found.turn) == ("risk-mirai-run", 0)
    state = found.model.state_dict()
    with Payload(exported.parent / "first.safetensors") as payload:
        assert set(state) == set(payload)
        assert all(torch.equal(state[name], torch.from_numpy(payload[name].copy())) for name in payload)


def test_its_readme_says_how_to_load_it(exported: Path, encoder: Path) -> None:
    readme = (exported / "README.md").read_text()
    line = next(line for line in readme.splitlines() if "load_exported(" in line)
    names = {"load_exported": load_exported, "this_folder": exported}
    exec(line.strip(), names)

    assert isinstance(names["model"], RiskModel)


def test_an_export_of_another_task_or_frozen_model_is_refused(exported: Path, encoder: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected the export of a run of risk-asymmirai, found one of risk-m"):
        load_exported(exported, ["risk-asymmirai"], encoder_digest(encoder))
    with pytest.raises(ConfigurationError, match=f"stands on the frozen model {encoder_digest(encoder)}"):
        load_exported(exported, ["risk-mirai"], "0" * 64)


def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, exported: Path, encoder: Path) -> None:
    digest = encoder_digest(encoder)
    with pytest.raises(ConfigurationError, match="expected the export"):
        load_exported(tmp_path, ["risk-mirai"], digest)
    shutil.copytree(exported, tmp_path / "cut")
    (tmp_path / "cut/heads.safetensors").write_bytes((exported / "heads.safetensors").read_bytes()[:-9])
    with pytest.raises(ConfigurationError, match="expected the export"):
        load_exported(tmp_path / "cut", ["risk-mirai"], digest)
    shutil.copytree(exported, tmp_path / "wider")
    manifest = json.loads((exported / "manifest.json").read_text())
    manifest["settings"]["task"]["width"] = 32
    (tmp_path / "wider/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigurationError, match="of another model than its manifest"):
        load_exported(tmp_path / "wider", ["risk-mirai"], digest)
