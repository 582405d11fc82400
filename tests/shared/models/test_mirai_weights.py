"""Reading MIRAI's weights: what fits is loaded whole, what does not is refused, and no pickle is ever opened."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mammofed_shared.config.mirai_teacher import is_calibrated, read_description
from mammofed_shared.errors import ConfigurationError
from mammofed_shared.models.mirai_teacher import MiraiTeacher
from mammofed_shared.models.mirai_weights import load_mirai
from mirai_files import RISK_FACTORS, SIZE, random_mirai, write_mirai


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mirai(tmp_path_factory.mktemp("mirai") / "mirai.safetensors", seed=5)


def load(path: Path) -> MiraiTeacher:
    told = read_description(path)
    return load_mirai(path, num_heads=told.num_heads, pool=told.pool, risk_factors=told.risk_factors)


def changed(whole: Path, path: Path, tensors: dict[str, torch.Tensor | None], **description: Any) -> Path:
    """The file with some tensors put in or, by None, taken out, and some words of its description changed."""
    found = load_file(whole) | {name: tensor for name, tensor in tensors.items() if tensor is not None}
    found = {name: tensor for name, tensor in found.items() if tensors.get(name, tensor) is not None}
    told = read_description(whole).model_dump() | description
    save_file(found, path, {"mirai": json.dumps(told)})
    return path


def test_a_whole_file_gives_the_model_that_was_written(whole: Path) -> None:
    model, original = load(whole), random_mirai(5)

    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    expected = {name: tensor for name, tensor in original.state_dict().items() if "num_batches" not in name}
    for name, tensor in expected.items():
        assert torch.equal(model.state_dict()[name], tensor), name
    told = read_description(whole)
    assert (told.image_height, told.image_width) == SIZE
    assert list(told.risk_factors.items()) == list(RISK_FACTORS.items())
    assert is_calibrated(whole)


def test_a_file_without_calibration_says_so(tmp_path: Path) -> None:
    bare = write_mirai(tmp_path / "bare.safetensors", calibrated=False)

    assert not is_calibrated(bare)
    assert load(bare).calibration is None


@pytest.mark.parametrize(
    "tensors",
    [
        {"transformer.pool.density_fc.weight": None},
        {"image_encoder.layer4.1.conv2.weight": None},
        {"check.logit": None},
        {"transformer.pool.extra_fc.weight": torch.zeros(1, 32)},
        {"transformer.transformer.view_embed.weight": torch.zeros(4, 32)},
    ],
    ids=["factor", "block", "check", "strange", "shape"],
)
def test_other_tensors_than_mirai_has_are_refused(
    whole: Path, tmp_path: Path, tensors: dict[str, torch.Tensor | None]
) -> None:
    with pytest.raises(ConfigurationError, match="does not hold a MIRAI that is known here"):
        load(changed(whole, tmp_path / "other.safetensors", tensors))


@pytest.mark.parametrize(
    ("description", "tensors"),
    [
        ({"num_heads": 8}, {}),
        ({"risk_factors": {"race": 3, "parous": 1, "density": 4}}, {}),
        ({}, {"image_encoder.bn1.running_var": torch.full((64,), 0.3)}),
    ],
    ids=["heads", "order of the factors", "encoder"],
)
def test_weights_that_do_here_something_else_than_in_mirai_are_refused(
    whole: Path, tmp_path: Path, description: dict[str, Any], tensors: dict[str, torch.Tensor | None]
) -> None:
    with pytest.raises(ConfigurationError, match=r"differs by .* from what MIRAI gave"):
        load(changed(whole, tmp_path / "other.safetensors", tensors, **description))


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return Path.write_text, (self.path, "sprung")  # type: ignore[return-value]


def test_a_snapshot_itself_is_refused_without_unpickling_it(tmp_path: Path) -> None:
    snapshot, sprung = tmp_path / "snapshot.p", tmp_path / "sprung"
    snapshot.write_bytes(pickle.dumps(_Trap(sprung)))

    with pytest.raises(ConfigurationError, match="Run it where MIRAI is"):
        read_description(snapshot)
    with pytest.raises(ConfigurationError):
        load_mirai(snapshot, num_heads=1, pool="GlobalAvgPool", risk_factors={})

    assert not sprung.exists()
    pickle.loads(snapshot.read_bytes())
    assert sprung.exists(), "the trap was set"


def test_a_missing_file_and_a_foreign_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_description(tmp_path / "none.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(
        ConfigurationError,
        match=r"foreign.safetensors is not a file that deploy/mirai/convert_snapshot\.py has written",
    ):
        read_description(tmp_path / "foreign.safetensors")
