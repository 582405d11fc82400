"""AdamW, its groups, and the learning-rate curve over the global progress of a run."""

import math

import torch
from torch import nn


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


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
