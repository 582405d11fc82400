"""MIRAI's published weights into ``MiraiTeacher``. Only safetensors: nothing is unpickled, no code can run.

The file is one that ``deploy/mirai/convert_snapshot.py`` has written. It holds what MIRAI itself gave for one image, so
weights that are understood otherwise here are noticed and refused.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mammofed_shared.errors import ConfigurationError
from mammofed_shared.models.mirai_teacher import MiraiTeacher, MiraiTransformer, Pool

_BLOCK = re.compile(r"^layer(\d)_(\d)\.")
_COUNTERS = "num_batches_tracked"
"""Batch normalisation counts its training steps; evaluation never reads it, so the file does not have it."""
_CHECK = "check."
_CHECK_FACTORS = (0.5, 1.0, 1.5, 2.0)
_TOLERANCE = 1e-3
"""Of the check; MIRAI's torch may be years older than ours. A layer that is wrong is wrong by tenths."""


def load_mirai(path: Path, *, num_heads: int, pool: Pool, risk_factors: Mapping[str, int]) -> MiraiTeacher:
    """MIRAI in evaluation mode; sizes are those of the tensors.

    Args:
        num_heads, pool, risk_factors: as the file's description says.

    Raises:
        ConfigurationError: the file is damaged, holds other tensors than the model has, or ones that do here
            something else than in MIRAI.
    """
    try:
        tensors = load_file(path)
        check = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_CHECK)}
        projection = tensors["transformer.projection_layer.weight"]
        model = MiraiTeacher(
            MiraiTransformer(
                num_features=projection.shape[1],
                width=projection.shape[0],
                num_layers=sum(name.endswith(".fc1.weight") for name in tensors),
                num_heads=num_heads,
                pool=pool,
                risk_factors=risk_factors,
                num_years=tensors["transformer.prob_of_failure_layer.hazard_fc.weight"].shape[0],
            ),
            tensors.get("calibration"),
        )
        found = model.load_state_dict({_as_ours(name): tensor for name, tensor in tensors.items()}, strict=False)
        missing = [name for name in found.missing_keys if not name.endswith(_COUNTERS)]
        if missing or found.unexpected_keys:
            raise KeyError(f"lacks {len(missing)} tensors, has {len(found.unexpected_keys)} strange ones")
        model.eval().requires_grad_(False)
        deviation = _deviation(model, check)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ConfigurationError(
            f"--weights: {path} does not hold a MIRAI that is known here ({error}): convert its snapshots again"
        ) from error
    if not deviation < _TOLERANCE:
        raise ConfigurationError(
            f"--weights: what {path} computes here differs by {deviation:.2g} from what MIRAI gave when it was "
            "converted, so its risks would not be MIRAI's. Please report it with the line that the converter printed"
        )
    return model


def _as_ours(name: str) -> str:
    """The name of a tensor in ``MiraiTeacher``; MIRAI's own ResNet names its blocks otherwise than timm's."""
    prefix = "image_encoder."
    if not name.startswith(prefix):
        return name
    inner = name.removeprefix(prefix).removeprefix("downsampler.")
    return prefix + _BLOCK.sub(r"layer\1.\2.", inner)


@torch.inference_mode()
def _deviation(model: MiraiTeacher, check: Mapping[str, Tensor]) -> float:
    """How far features and logits of the converter's image are from MIRAI's, at most, by the larger of 1 and them."""
    features = model.features(check["check.image"])
    exam = torch.stack([check["check.features"] * factor for factor in _CHECK_FACTORS])[None]
    view, side = torch.tensor([[0, 1, 0, 1]]), torch.tensor([[0, 0, 1, 1]])
    logit = model.transformer(exam, torch.zeros_like(view), view, side)
    pairs = ((features, check["check.features"]), (logit, check["check.logit"]))
    return max(float(((ours - theirs).abs() / theirs.abs().clamp(min=1)).max()) for ours, theirs in pairs)
