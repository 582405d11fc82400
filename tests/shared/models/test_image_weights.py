"""Image weights from a file that the user brings: safetensors of the very model, or a clear refusal."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from mammofed_shared.errors import ConfigurationError
from mammofed_shared.models.image_encoder import ImageEncoder

NAME = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as at the hub: with a classifier."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(timm.create_model(NAME, num_classes=3).state_dict(), path)
    return path


def test_a_file_and_its_folder_give_the_same_weights_without_the_classifier(file: Path) -> None:
    models = [ImageEncoder(NAME, weights=str(path)).model.state_dict() for path in (file, file.parent)]

    stored = timm.create_model(NAME, num_classes=3)
    from safetensors.torch import load_file

    stored.load_state_dict(load_file(file))
    assert not any(name.startswith("classifier") for name in models[0])
    for name, tensor in models[0].items():
        assert torch.equal(tensor, stored.state_dict()[name]) and torch.equal(tensor, models[1][name])


def test_weights_of_another_model_are_refused_by_the_first_name(file: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"not of the model .*tensors \(.* first\) are missing"):
        ImageEncoder("mammofed_small_cnn", weights=str(file))


def test_weights_of_another_shape_are_refused(file: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    changed = load_file(file)
    changed["conv_stem.weight"] = changed["conv_stem.weight"][:1].contiguous()
    save_file(changed, tmp_path / "other.safetensors")

    with pytest.raises(ConfigurationError, match=r"1 tensors \(conv_stem.weight first\) have another shape"):
        ImageEncoder(NAME, weights=str(tmp_path))


@pytest.mark.parametrize("name", ["imagnet", "weights.pth", "empty", "two", "broken.safetensors"])
def test_what_is_no_such_file_is_refused_and_nothing_is_unpickled(tmp_path: Path, name: str) -> None:
    torch.save({}, tmp_path / "weights.pth")
    (tmp_path / "broken.safetensors").write_text("not a header")
    (tmp_path / "empty").mkdir()
    (tmp_path / "two").mkdir()
    for number in "12":
        save_file({}, tmp_path / "two" / f"{number}.safetensors")

    with pytest.raises(ConfigurationError, match=r"image_encoder\.weights: "):
        ImageEncoder(NAME, weights=str(tmp_path / name))
