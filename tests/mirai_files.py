"""A MIRAI with random weights as the file that the converter writes of the real one; ready in a second."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mammofed_shared.models.mirai_teacher import MiraiTeacher, MiraiTransformer, Pool

RISK_FACTORS = {"density": 4, "parous": 1, "race": 3}
SIZE = (96, 64)
"""Height and width of the images that it wants; the real one wants 2048 × 1664."""


def random_mirai(
    seed: int,
    *,
    pool: Pool = "Simple_AttentionPool",
    risk_factors: dict[str, int] = RISK_FACTORS,
    calibrated: bool = True,
) -> MiraiTeacher:
    """In evaluation mode, with statistics of batch normalisation that matter."""
    torch.manual_seed(seed)
    transformer = MiraiTransformer(
        num_features=512, width=32, num_layers=2, num_heads=4, pool=pool, risk_factors=risk_factors
    )
    calibration = torch.tensor([[1.0 + year, -2.0, -1.5, 0.5] for year in range(5)], dtype=torch.float64)
    model = MiraiTeacher(transformer, calibration if calibrated else None)
    for name, buffer in model.image_encoder.named_buffers():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(buffer, std=0.2)
    return model.eval()


def write_mirai(path: Path, seed: int = 0, *, description: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write ``random_mirai``; ``description`` lays values over what is said of it."""
    model = random_mirai(seed, **changes)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if "num_batches" not in name}
    image = torch.linspace(-1, 1, SIZE[0] * SIZE[1]).reshape(SIZE)
    with torch.inference_mode():
        features = model.features(image).clone()
        exam = torch.stack([features * factor for factor in (0.5, 1.0, 1.5, 2.0)])[None]
        view, side = torch.tensor([[0, 1, 0, 1]]), torch.tensor([[0, 0, 1, 1]])
        logit = model.transformer(exam, torch.zeros_like(view), view, side)
    tensors |= {"check.image": image, "check.features": features, "check.logit": logit}
    told: dict[str, Any] = {"version": 1, "image_height": SIZE[0], "image_width": SIZE[1]}
    told |= {"image_mean": 7047.99, "image_std": 12005.5, "num_heads": 4}
    told |= {"pool": changes.get("pool", "Simple_AttentionPool")}
    told |= {"risk_factors": changes.get("risk_factors", RISK_FACTORS)} | (description or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"mirai": json.dumps(told)})
    return path
