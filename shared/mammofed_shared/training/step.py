"""The one training loop: batches in, optimizer steps out. It knows no task, no site and no file."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.protocol.plan import Progress
from mammofed_shared.training.optim import set_learning_rate


class Trainable(Protocol):
    """What the loop needs of a task and its data at one site."""

    @property
    def model(self) -> nn.Module:
        """What is trained; on the device."""

    @property
    def num_steps(self) -> int:
        """Steps of one epoch."""

    def batches(self, seed: int, epoch: int) -> Iterator[Any]:
        """The batches of an epoch, in order, equal for equal arguments."""

    def losses(self, batch: Any) -> Mapping[str, Tensor]:
        """Scalars of one batch; ``loss`` is the one to minimise."""

    def after_step(self) -> None:
        """What must hold after each optimizer step."""


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How the loop steps."""

    clip_norm: float
    precision: Literal["fp32", "bf16"]
    device: torch.device


@dataclass(slots=True)
class LoopNumbers:
    """Means over the last epoch, and the last step's learning rate."""

    num_steps: int = 0
    num_samples: int = 0
    learning_rate: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def means(self) -> dict[str, float]:
        """Mean of each summed number over the last epoch."""
        return {name: total / self.count for name, total in self.sums.items()}


def train_epochs(
    task: Trainable,
    optimizer: torch.optim.Optimizer,
    learning_rate_at: Callable[[float], float],
    settings: LoopSettings,
    *,
    epochs: int,
    seed: int,
    report: Callable[[Progress], None],
) -> LoopNumbers:
    """Train for some epochs.

    Args:
        learning_rate_at: epochs of this visit that are done, with their fraction → learning rate.
        seed: of this visit; orders and augmentations depend on it and on the epoch alone.
        report: called after each step.

    Raises:
        VisitFailed: NOT_FINITE_LOSS.
    """
    numbers = LoopNumbers()
    started = time.monotonic()
    task.model.train()
    for epoch in range(epochs):
        numbers.sums, numbers.count = {}, 0
        for step, batch in enumerate(task.batches(seed, epoch)):
            numbers.learning_rate = learning_rate_at(epoch + step / task.num_steps)
            set_learning_rate(optimizer, numbers.learning_rate)
            found = training_step(task, optimizer, batch, settings)
            numbers.num_steps += 1
            numbers.num_samples += len(batch)
            numbers.count += 1
            for name, value in found.items():
                numbers.sums[name] = numbers.sums.get(name, 0.0) + value
            report(
                Progress(
                    epoch=epoch,
                    step=numbers.num_steps,
                    num_steps=epochs * task.num_steps,
                    loss=found["loss"],
                    samples_per_s=numbers.num_samples / max(time.monotonic() - started, 1e-9),
                )
            )
    return numbers


def training_step(
    task: Trainable, optimizer: torch.optim.Optimizer, batch: Any, settings: LoopSettings
) -> dict[str, float]:
    """One optimizer step; gives the losses and ``grad_norm`` before clipping.

    Raises:
        VisitFailed: NOT_FINITE_LOSS; the weights have not moved then.
    """
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(settings.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        losses = task.losses(batch)
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(task.model.parameters(), settings.clip_norm)
    found = {name: float(value.detach()) for name, value in losses.items()} | {"grad_norm": float(norm)}
    if not all(torch.isfinite(torch.tensor(list(found.values())))):
        raise VisitFailed(
            RefusalCode.NOT_FINITE_LOSS,
            f"loss {found['loss']:.3g}, gradient norm {found['grad_norm']:.3g}: expected finite numbers. "
            "Lower optimizer.learning_rate, or set precision to fp32.",
        )
    optimizer.step()
    task.after_step()
    return found
