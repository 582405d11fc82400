"""Errors of a sparse autoencoder's nested codes, with gradients that take hardly more than the matrix products.

Written by hand because memory decides: autograd makes ten arrays of the size of the code in a step, and with what the
machine does about fresh memory they took 1.4 products' time more than the three that are made here (67 M parameters,
batch 2048, two cores).

Shapes: B samples, F features, N neurons, K neurons kept by the longest narrow level, R samples of one part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

EVERY_LEVEL = -1
"""Turn of a sample that is trained at all wide levels."""


@dataclass(frozen=True, slots=True)
class Part:
    """Samples of a batch at one level."""

    rows: slice
    level: int


def turns_of(num_samples: int, num_levels: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Which level each sample of a step is trained at, and what its error counts there, both (B,).

    Each level has an equal part of the step, of neighbouring samples, but for one sample; the weights make up for that:
    the mean over the step of weighted errors is the sum over the levels of their mean errors. Steps are drawn at
    random, so which samples a level gets is random, too.
    """
    turn_B = np.arange(num_samples) * num_levels // max(num_samples, 1)
    sizes_L = np.bincount(turn_B, minlength=num_levels)
    return turn_B, (num_samples / sizes_L[turn_B]).astype(np.float32)


def parts_of(turn_B: Tensor, levels: Sequence[int]) -> list[Part]:
    """The parts of a batch whose samples have these turns: numbers of levels, or ``EVERY_LEVEL``."""
    parts, start = [], 0
    runs = torch.unique_consecutive(turn_B, return_counts=True)
    for turn, count in zip(runs[0].tolist(), runs[1].tolist(), strict=True):
        rows = slice(start, start := start + count)
        parts += [Part(rows, level) for level in (levels if turn == EVERY_LEVEL else levels[turn : turn + 1])]
    return parts


def keep_largest(code_BN: Tensor, level: int) -> Tensor:
    """The code with all but its ``level`` largest numbers set to 0; without gradient."""
    if level >= code_BN.shape[1]:
        return code_BN.detach()
    largest = code_BN.detach().topk(level, dim=1, sorted=False)
    return torch.zeros_like(code_BN).scatter_(1, largest.indices, largest.values)


class WideErrors(torch.autograd.Function):
    """Encoding, and the squared errors of the levels that take a product of whole matrices.

    ``apply(features_BF, encoder_NF, offset_N, dictionary_NF, bias_F, weight_B, parts, num_kept)`` gives, for the code
    z = ReLU(E·x + offset) and x̂ = Wᵀ·kept(z) + bias:

    - the sum over the parts that a sample is in of its ``weight`` · ‖x − x̂‖² (B,),
    - Σ z (B,),
    - the ``num_kept`` largest numbers of z, falling, and their neurons, (B, K) each,
    - which neurons have fired (N,).

    Neither features nor weights get a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features_BF: Tensor,
        encoder_NF: Tensor,
        offset_N: Tensor,
        dictionary_NF: Tensor,
        bias_F: Tensor,
        weight_B: Tensor,
        parts: Sequence[Part],
        num_kept: int,
    ) -> tuple[Tensor, ...]:
        code_BN = torch.addmm(offset_N, features_BF, encoder_NF.T).relu_()
        wanted_BF = features_BF - bias_F
        error_B = code_BN.new_zeros(len(code_BN))
        kept, missing = [], []
        for part in parts:
            kept_RN = keep_largest(code_BN[part.rows], part.level)
            missing_RF = torch.addmm(wanted_BF[part.rows], kept_RN, dictionary_NF, alpha=-1)
            error_B[part.rows] += weight_B[part.rows] * missing_RF.square().sum(dim=1)
            kept.append(kept_RN)
            missing.append(missing_RF)
        largest_BK, neurons_BK = code_BN.topk(num_kept, dim=1, sorted=True)
        fired_N = code_BN.amax(dim=0) > 0
        ctx.save_for_backward(features_BF, dictionary_NF, weight_B, code_BN, neurons_BK, *kept, *missing)
        ctx.parts = parts
        ctx.mark_non_differentiable(neurons_BK, fired_N)
        return error_B, code_BN.sum(dim=1), largest_BK, neurons_BK, fired_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        error_grad_B, sum_grad_B, largest_grad_BK = grads[:3]
        features_BF, dictionary_NF, weight_B, code_BN, neurons_BK, *rest = ctx.saved_tensors
        kept, missing = rest[: len(ctx.parts)], rest[len(ctx.parts) :]
        code_grad_BN = torch.zeros_like(code_BN) if not ctx.parts else torch.empty_like(code_BN)
        dictionary_grad_NF = torch.zeros_like(dictionary_NF)
        bias_grad_F = torch.zeros_like(dictionary_NF[0])
        filled = 0
        for part, kept_RN, missing_RF in zip(ctx.parts, kept, missing, strict=True):
            given_grad_RF = missing_RF * (-2 * weight_B * error_grad_B)[part.rows, None]
            is_first = part.rows.start >= filled
            target_RN = code_grad_BN[part.rows] if is_first else torch.empty_like(kept_RN)
            torch.mm(given_grad_RF, dictionary_NF.T, out=target_RN)
            if part.level < code_BN.shape[1]:
                target_RN.masked_fill_(kept_RN == 0, 0)
            if not is_first:
                code_grad_BN[part.rows] += target_RN
            filled = part.rows.stop
            dictionary_grad_NF.addmm_(kept_RN.T, given_grad_RF)
            bias_grad_F += given_grad_RF.sum(dim=0)
        code_grad_BN.scatter_add_(1, neurons_BK, largest_grad_BK)
        code_grad_BN.add_(sum_grad_B[:, None]).masked_fill_(code_BN == 0, 0)
        encoder_grad_NF = code_grad_BN.T @ features_BF
        return None, encoder_grad_NF, code_grad_BN.sum(dim=0), dictionary_grad_NF, bias_grad_F, None, None, None


def narrow_errors(
    wanted_BF: Tensor, largest_BK: Tensor, neurons_BK: Tensor, dictionary_NF: Tensor, levels: Sequence[int]
) -> Tensor:
    """Sum over short levels of the squared errors, (B,).

    Each level is the one before and the neurons that it adds, so that no neuron is decoded twice.

    Args:
        wanted_BF: features without the bias.
        largest_BK: the numbers of the longest of the levels, falling, and …
        neurons_BK: … their neurons.
    """
    num_samples = len(wanted_BF)
    starts_L = torch.tensor([0, *levels[:-1]], device=neurons_BK.device)
    first_B1 = torch.arange(num_samples, device=neurons_BK.device)[:, None] * levels[-1]
    added = F.embedding_bag(
        neurons_BK.flatten(),
        dictionary_NF,
        (first_B1 + starts_L).flatten(),
        mode="sum",
        per_sample_weights=largest_BK.flatten(),
    )
    error_B, missing_BF = wanted_BF.new_zeros(num_samples), wanted_BF
    for added_BF in added.view(num_samples, len(levels), -1).unbind(dim=1):
        missing_BF = missing_BF - added_BF
        error_B = error_B + missing_BF.square().sum(dim=1)
    return error_B


class UnitRows(torch.autograd.Function):
    """``apply(rows_NF)`` gives the rows at length 1; a row of zeros stays one, with no gradient."""

    @staticmethod
    def forward(ctx: Any, rows_NF: Tensor) -> Tensor:
        shrink_N1 = 1 / rows_NF.norm(dim=1, keepdim=True).clamp(min=1e-12)
        unit_NF: Tensor = rows_NF * shrink_N1
        ctx.save_for_backward(unit_NF, shrink_N1)
        return unit_NF

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NF: Tensor) -> Tensor:
        unit_NF, shrink_N1 = ctx.saved_tensors
        along_N1 = torch.linalg.vecdot(grad_NF, unit_NF)[:, None]
        return torch.addcmul(grad_NF, unit_NF, along_N1, value=-1).mul_(shrink_N1)
