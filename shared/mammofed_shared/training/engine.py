"""How a model's gradients become an optimizer step, on one process or several that each hold the whole model (DDP).

``zero.py`` is the same for DeepSpeed's ZeRO, where the processes divide moments, gradients and weights.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from numpy.typing import NDArray
from torch import Tensor, nn

from mammofed_shared.training.gradient_term import GradientTerm
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.optim import make_adamw, set_learning_rate
from mammofed_shared.training.state import exchanged_arrays

_WHOLE_NUMBERS = ("growth_interval", "_growth_tracker")
"""Of a gradient scaler's state."""


@dataclass(frozen=True, slots=True)
class Moments:
    """AdamW's state of one parameter: both moments in the parameter's shape, float32."""

    name: str
    first: NDArray[np.float32]
    second: NDArray[np.float32]


class Engine(Protocol):
    """A model under an optimizer. Every process of the group calls every method, in the same order."""

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the model gives."""

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss, times what keeps small gradients alive in fp16."""

    def chunk(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Forward and backward of one chunk with a graph stand in here; after the last one of a step the gradients are
        the mean over the processes."""

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients; inside ``chunk``."""

    def step(self, learning_rate: float) -> float:
        """Clip, step and forget the gradients; gives their norm before clipping. If it is not finite nothing moves."""

    def weights(self) -> dict[str, NDArray[Any]]:
        """Parameters and buffers, whole and in full precision; buffers are this process's."""

    def moments(self) -> Iterator[Moments]:
        """The moments of every trained parameter, whole; none before the first step."""

    @property
    def num_steps(self) -> float:
        """Steps that the moments have seen."""

    def set_moments(self, kept: Mapping[str, Moments], num_steps: float) -> None:
        """Go on from kept moments, one pair for every trained parameter."""

    def clamp(self, parameter: nn.Parameter, largest: float) -> None:
        """Hold a parameter at ``largest`` or below, wherever it is kept."""

    @property
    def loss_scale(self) -> float:
        """What ``scaled`` multiplies by."""

    def scaler_state(self) -> dict[str, float]:
        """All that the scale's course depends on; empty where there is none."""

    def set_scaler_state(self, state: Mapping[str, float]) -> None:
        """Go on from a kept scale."""


class WholeModelEngine:
    """One process, or several of which each holds the whole model (DDP).

    Args:
        model: on the group's device, in full precision.
        is_fp16: scale the loss, so that small gradients survive.
        term: what the run's strategy adds to the gradients.
    """

    def __init__(
        self,
        model: nn.Module,
        group: WorkerGroup,
        *,
        weight_decay: float,
        clip_norm: float,
        is_fp16: bool,
        term: GradientTerm | None = None,
    ) -> None:
        self._model = model
        self._term = term
        self._clip_norm = clip_norm
        self._optimizer = make_adamw(model, weight_decay)
        self._scaler = torch.amp.GradScaler(group.device.type, enabled=is_fp16)
        # Precision is the step's affair, the same on every hardware. Buffers are not broadcast: each process keeps its
        # own statistics, and their mean is what the visit gives.
        self._accelerator = Accelerator(
            cpu=group.device.type == "cpu",
            mixed_precision="no",
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
        )
        self._prepared = cast(nn.Module, self._accelerator.prepare_model(model))

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As ``Engine``."""
        return cast(tuple[Tensor, ...], self._prepared(*inputs))

    def scaled(self, loss: Tensor) -> Tensor:
        """As ``Engine``."""
        return self._scaler.scale(loss)

    def chunk(self, *, is_last: bool) -> AbstractContextManager[None]:
        """As ``Engine``."""
        return (
            nullcontext() if is_last else cast(AbstractContextManager[None], self._accelerator.no_sync(self._prepared))
        )

    def backward(self, loss: Tensor) -> None:
        """As ``Engine``."""
        self._accelerator.backward(loss)

    def step(self, learning_rate: float) -> float:
        """As ``Engine``."""
        set_learning_rate(self._optimizer, learning_rate)
        self._scaler.unscale_(self._optimizer)
        if self._term is not None:
            self._term.add()
        norm = float(nn.utils.clip_grad_norm_(self._model.parameters(), self._clip_norm))
        if math.isfinite(norm):
            if self._term is not None:
                self._term.note(learning_rate)
            self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def weights(self) -> dict[str, NDArray[Any]]:
        """As ``Engine``."""
        return exchanged_arrays(self._model)

    def moments(self) -> Iterator[Moments]:
        """As ``Engine``."""
        for name, parameter in self._model.named_parameters():
            state = self._optimizer.state.get(parameter)
            if state:
                yield Moments(name, state["exp_avg"].cpu().numpy(), state["exp_avg_sq"].cpu().numpy())

    @property
    def num_steps(self) -> float:
        """As ``Engine``."""
        return max((float(state["step"]) for state in self._optimizer.state.values()), default=0.0)

    def set_moments(self, kept: Mapping[str, Moments], num_steps: float) -> None:
        """As ``Engine``."""
        for name, parameter in self._model.named_parameters():
            if parameter.requires_grad:
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(num_steps, dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.from_numpy(kept[name].first.copy()).to(parameter.device),
                    "exp_avg_sq": torch.from_numpy(kept[name].second.copy()).to(parameter.device),
                }

    @torch.no_grad()
    def clamp(self, parameter: nn.Parameter, largest: float) -> None:
        """As ``Engine``."""
        parameter.clamp_(max=largest)

    @property
    def loss_scale(self) -> float:
        """As ``Engine``."""
        return self._scaler.get_scale()

    def scaler_state(self) -> dict[str, float]:
        """As ``Engine``."""
        return {name: float(value) for name, value in self._scaler.state_dict().items()}

    def set_scaler_state(self, state: Mapping[str, float]) -> None:
        """As ``Engine``."""
        if self._scaler.is_enabled():
            whole = {name: int(value) if name in _WHOLE_NUMBERS else value for name, value in state.items()}
            self._scaler.load_state_dict(whole)
