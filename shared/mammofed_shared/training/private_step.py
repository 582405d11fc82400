"""The gradient of one step of DP-SGD: each patient's part is clipped alone, the sum gets noise.

Source: Abadi et al. 2016, *Deep Learning with Differential Privacy*, algorithm 1, with patients in the place of
examples. The patients of a step are computed one after the other. That is slower than per-sample gradients by hooks or
by ``vmap``, but exact for every layer and for weights that are used twice (the word table is also the last layer of the
masked-token head, where hooks would miss half of the gradient), and takes the memory of one patient.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mammofed_shared.config.privacy import DpSgdSettings
from mammofed_shared.noise import ANGLE_MASK, ANGLE_UNIT, RADIUS_MASK, RADIUS_UNIT, NoiseStream, grid_of, subkey
from mammofed_shared.training.engine import Engine
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.share import Share
from mammofed_shared.training.step import Precision, Trainable, autocast

_NOISE_BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class PatientShare(Share):
    """A step's samples by patient: the model's arguments for each of them. A step may have none."""

    patients: tuple[tuple[NDArray[Any], ...], ...] = field(default=())


class PrivateGradients:
    """Takes the place of ``step.accumulate_gradients``.

    Args:
        secret: of this visit; noise and dropout are drawn from it and from the step's seed.
        expected_patients: number of patients of a step in the mean, by which the sum is divided; the true number would
            tell of the sample.
    """

    def __init__(self, settings: DpSgdSettings, secret: bytes, expected_patients: float) -> None:
        self._settings = settings
        self._secret = secret
        self._expected_patients = expected_patients

    def __call__(
        self,
        task: Trainable,
        engine: Engine,
        group: WorkerGroup,
        share: Share,
        precision: Precision,
        micro_batch: int | None,
        seed: int,
    ) -> dict[str, float]:
        """Leave a step's gradient in the engine, and give the mean loss of its patients; 0 where there are none.

        A patient whose gradient is not finite adds nothing: what is left out is no more than she could change.
        """
        assert isinstance(share, PatientShare), "its task samples patients"
        trained = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
        sums = [torch.zeros(parameter.shape, device=parameter.device) for parameter in trained]
        losses = []
        for number, inputs in enumerate(share.patients):
            torch.manual_seed(int.from_bytes(subkey(self._secret, "dropout", seed, number)[:8], "big") >> 1)
            loss = _patient_gradient(task, engine, group, inputs, precision, micro_batch)
            norm = _clip(trained, self._settings.clip_norm)
            if math.isfinite(norm):
                for total, parameter in zip(sums, trained, strict=True):
                    if parameter.grad is not None:
                        total += parameter.grad
                losses.append(loss)
            for parameter in trained:
                parameter.grad = None
        stream = NoiseStream(subkey(self._secret, "noise", seed))
        deviation = self._settings.noise_multiplier * self._settings.clip_norm
        for total, parameter in zip(sums, trained, strict=True):
            add_noise(total, deviation, stream)
            parameter.grad = total.div_(self._expected_patients)
        return {"loss": sum(losses) / len(losses) if losses else 0.0}


def _patient_gradient(
    task: Trainable,
    engine: Engine,
    group: WorkerGroup,
    inputs: Sequence[NDArray[Any]],
    precision: Precision,
    micro_batch: int | None,
) -> float:
    """Leave the gradient of the mean loss of one patient's samples in the parameters; give that loss."""
    count = len(inputs[0])
    loss = 0.0
    for rows in _chunks(count, micro_batch):
        tensors = tuple(torch.from_numpy(array[rows]).to(group.device, non_blocking=True) for array in inputs)
        with autocast(group.device, precision):
            outputs = engine.forward(tensors)
        found = task.losses(outputs).rows
        assert found is not None, "its task tells the loss of each sample"
        part = found.float().sum() / count
        engine.backward(part)
        loss += float(part.detach())
    return loss


def _chunks(count: int, micro_batch: int | None) -> Iterator[slice]:
    size = micro_batch or count
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


@torch.no_grad()
def _clip(trained: Sequence[nn.Parameter], clip_norm: float) -> float:
    """Shorten the gradient of all parameters together to a norm; gives the norm that it had."""
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    if not gradients:
        return 0.0
    norm = float(torch.stack([part.double() for part in torch._foreach_norm(gradients)]).norm())
    if clip_norm < norm < math.inf:
        torch._foreach_mul_(gradients, clip_norm / (norm * (1 + 1e-6)))  # no rounding makes it longer again
    return norm


@torch.no_grad()
def add_noise(total: Tensor, deviation: float, stream: NoiseStream) -> None:
    """Add Gaussian noise to each value in place, and round to the grid of ``noise.py``.

    Args:
        total: contiguous, float32.
    """
    grid = grid_of(deviation)
    flat = total.view(-1)
    for start in range(0, flat.numel(), _NOISE_BLOCK):
        block = flat[start : start + _NOISE_BLOCK]
        values = block.double() + deviation * normals(stream, block.numel(), total.device)
        block.copy_((values / grid).round_() * grid)


def normals(stream: NoiseStream, count: int, device: torch.device) -> Tensor:
    """As ``NoiseStream.normals``, computed on a device; float64."""
    half = -(-count // 2)
    words = torch.from_numpy(stream.words(2 * half).astype(np.int64, copy=False)).to(device)
    radius = ((((words[:half] >> 1) & RADIUS_MASK).double() + 0.5) * RADIUS_UNIT).log_().mul_(-2.0).sqrt_()
    angle = ((words[half:] >> 11) & ANGLE_MASK).double() * (2 * math.pi * ANGLE_UNIT)
    return torch.cat([radius * angle.cos(), radius * angle.sin()])[:count]
