"""AdamW, its groups, its moments on disk, and the learning-rate curve over the global progress of a run."""

import math
from pathlib import Path

import torch
from torch import nn

from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.protocol.payload import Payload, write_payload


def warmup_cosine(base: float, progress: float, warmup: float) -> float:
    """Learning rate at a point of the run: linear from 0 to ``base``, then ``base`` · cos² down to 0.

    The curve of the authors' released code (golden b_warmup_cosine_lr) over global progress instead of a site's own
    step count, so that sites of different size and restarted visits follow one curve.

    Args:
        base: largest learning rate.
        progress: 0..1, share of the run's epochs that is done before the step.
        warmup: 0..1, share of the run's epochs that is warm-up.
    """
    if progress < warmup:
        return base * progress / warmup
    if warmup >= 1:
        return base
    return base * math.cos(math.pi / 2 * (progress - warmup) / (1 - warmup)) ** 2


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups: matrices and kernels with weight decay; biases, norms and scales (below 2 dimensions) without."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def make_adamw(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over a model; the learning rate is set before each step."""
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=0.0, fused=True)


def save_moments(path: Path, model: nn.Module, optimizer: torch.optim.AdamW) -> None:
    """Write both moments of every parameter, by its name, and the number of steps that they have seen."""
    tensors = {}
    steps = 0.0
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter)
        if state:
            tensors[f"first/{name}"] = state["exp_avg"].cpu().numpy()
            tensors[f"second/{name}"] = state["exp_avg_sq"].cpu().numpy()
            steps = float(state["step"])
    write_payload(path, tensors, {"steps": steps})


def load_moments(path: Path, model: nn.Module, optimizer: torch.optim.AdamW) -> None:
    """Give an optimizer the moments that ``save_moments`` wrote.

    Raises:
        VisitFailed: SETTINGS, when they belong to another model.
    """
    with Payload(path) as payload:
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            optimizer.state[parameter] = {
                "step": torch.tensor(payload.numbers["steps"], dtype=torch.float32, device=parameter.device),
                "exp_avg": _moment(payload, f"first/{name}", parameter),
                "exp_avg_sq": _moment(payload, f"second/{name}", parameter),
            }


def _moment(payload: Payload, name: str, parameter: nn.Parameter) -> torch.Tensor:
    entry = payload.entries.get(name)
    if entry is None or entry.shape != tuple(parameter.shape):
        raise VisitFailed(
            RefusalCode.SETTINGS,
            f"kept optimizer moments: expected {name} of shape {tuple(parameter.shape)}, found "
            f"{'none' if entry is None else entry.shape}. The run's model has changed: start a run of another name.",
        )
    return torch.from_numpy(payload[name].copy()).to(parameter.device)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
