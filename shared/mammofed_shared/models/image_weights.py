"""A timm model's weights from a file that the user brings. Only safetensors: nothing is unpickled, no code can run."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from mammofed_shared.errors import ConfigurationError


def load_image_weights(model: Any, path: Path) -> None:
    """Give a timm model without a head the weights in a safetensors file, in timm's names.

    Args:
        path: the file, or a folder that holds it, such as a copy of a timm model of huggingface.co, or the
            ``image_encoder`` of `fl-server export`. A classifier in it is left out.

    Raises:
        ConfigurationError: there is no such file, or it is of another model.
    """
    file = _weights_file(path)
    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(f"image_encoder.weights: {file} is no whole safetensors file: {error}") from error
    own = model.state_dict()
    classifier = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    heads = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    weights = {name: tensor for name, tensor in found.items() if name in own or not name.startswith(heads)}
    missing, foreign = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    other = sorted(name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape)
    if missing or foreign or other:
        raise ConfigurationError(
            f"image_encoder.weights: {file} is not of the model that image_encoder.name names: {_told(missing)} are "
            f"missing, {_told(foreign)} are unknown, {_told(other)} have another shape"
        )
    model.load_state_dict(weights)


def _weights_file(path: Path) -> Path:
    if path.is_file() and path.suffix == ".safetensors":
        return path
    files = [path / "model.safetensors"] if (path / "model.safetensors").is_file() else list(path.glob("*.safetensors"))
    if path.is_dir() and len(files) == 1:
        return files[0]
    raise ConfigurationError(
        f"image_encoder.weights: expected none, imagenet, a .safetensors file or the folder that holds it, found "
        f"{f'{len(files)} such files' if path.is_dir() else 'none'} at {path}. Other formats are not read: they can "
        "run code. `safetensors.torch.save_file` writes this one"
    )


def _told(names: Iterable[str]) -> str:
    found = list(names)
    return f"{len(found)} tensors ({found[0]} first)" if found else "0 tensors"
