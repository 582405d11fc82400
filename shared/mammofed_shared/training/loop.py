"""The one training loop: shares in, optimizer steps out. It knows no task, no site and no file."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.protocol.plan import Progress
from mammofed_shared.training.engine import Engine
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.share import Share
from mammofed_shared.training.step import BeginsEpochs, Gradients, Precision, Trainable, accumulate_gradients, step_seed

logger = logging.getLogger(__name__)

LOG_EVERY_S = 60.0
_LAST_STEPS = 20
"""Steps that the dump of a visit without finite losses tells."""


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How the loop steps. ``most_skipped`` steps in a row without finite numbers end the visit."""

    precision: Precision
    micro_batch: int | None
    most_skipped: int


@dataclass(slots=True)
class Position:
    """How far a visit is, and what its steps have told: all that the loop needs to go on from here.

    ``sums`` and ``counts`` are over the steps of the epoch in hand. ``epoch`` and ``step`` name the next step.
    """

    epoch: int = 0
    step: int = 0
    num_steps: int = 0
    num_samples: int = 0
    num_skipped: int = 0
    skipped_in_row: int = 0
    learning_rate: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    told: dict[str, float] = field(default_factory=dict)
    """Sums of ``Share.counts`` over the visit, of this process."""

    def means(self) -> dict[str, float]:
        """Mean of each number over the steps of the last epoch that told it."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}


@dataclass(slots=True)
class Clock:
    """Seconds since the loop began in this process, and those of them in which a step waited for data."""

    started_s: float = field(default_factory=time.monotonic)
    waited_s: float = 0.0
    num_samples: int = 0
    num_steps: int = 0

    @property
    def passed_s(self) -> float:
        """Since the beginning; never 0."""
        return max(time.monotonic() - self.started_s, 1e-9)

    @property
    def data_wait(self) -> float:
        """Share of time, 0 to 1, that steps waited for data."""
        return self.waited_s / self.passed_s


class NotFinite(VisitFailed):
    """Too many steps in a row had no finite loss or gradient; ``steps`` tells the last ones in numbers."""

    def __init__(self, count: int, steps: list[dict[str, float]]) -> None:
        super().__init__(
            RefusalCode.NOT_FINITE_LOSS,
            f"{count} steps in a row without a finite loss and gradient; no weight of them was kept. Lower "
            "optimizer.learning_rate, or set precision to fp32; not-finite.json in the visit's folder tells the steps",
        )
        self.steps = steps


def train_epochs(
    task: Trainable,
    engine: Engine,
    group: WorkerGroup,
    settings: LoopSettings,
    position: Position,
    clock: Clock,
    *,
    learning_rate_at: Callable[[float], float],
    epochs: int,
    seed: int,
    report: Callable[[Progress], None],
    save_if_due: Callable[[Position], None],
    gradients: Gradients = accumulate_gradients,
) -> None:
    """Train from ``position`` to the end of the last epoch; both it and the clock are kept up to date.

    Args:
        learning_rate_at: epochs of this visit that are done, with their fraction → learning rate.
        seed: of this visit; order, augmentations and all else that is drawn depend on it and on the step's place.
        report: called after each step.
        save_if_due: called after each step, by every process.
        gradients: how a step comes to its gradients.

    Raises:
        NotFinite: after ``most_skipped`` steps in a row.
    """
    if position.step >= task.num_steps:
        raise VisitFailed(RefusalCode.SETTINGS, "the data have changed since this visit was cut: it must begin anew")
    guard = _Buffers(task.model)
    recent: deque[dict[str, float]] = deque(maxlen=_LAST_STEPS)
    log_at_s = LOG_EVERY_S
    task.model.train()
    while position.epoch < epochs:
        if position.step == 0:
            position.sums, position.counts = {}, {}
            if isinstance(task, BeginsEpochs):
                task.begin_epoch(seed, position.epoch)
        for share in _waited_for(task.shares(seed, position.epoch, position.step), clock):
            position.learning_rate = learning_rate_at(position.epoch + position.step / task.num_steps)
            guard.note()
            found = gradients(
                task, engine, group, share, settings.precision, settings.micro_batch,
                step_seed(seed, position.epoch, position.step),
            )  # fmt: skip
            is_fine = math.isfinite(found["loss"])
            if is_fine:
                scale = engine.loss_scale
                found["grad_norm"] = engine.step(position.learning_rate)
                is_fine = math.isfinite(found["grad_norm"])
                # In fp16 the scale starts too high on purpose; steps that only lower it are no sign of trouble.
                is_trouble = not is_fine and scale <= 1
            else:
                is_trouble = True
            recent.append({"epoch": position.epoch, "step": position.step, "lr": position.learning_rate, **found})
            if is_fine:
                task.after_step(engine)
                _add(position, found)
            else:
                guard.restore()
            _advance(position, share, task.num_steps, is_fine=is_fine, is_trouble=is_trouble)
            clock.num_samples += sum(share.sizes)
            clock.num_steps += 1
            if position.skipped_in_row >= settings.most_skipped:
                raise NotFinite(position.skipped_in_row, list(recent)[-position.skipped_in_row :])
            report(_progress(position, found, epochs * task.num_steps, clock))
            if clock.passed_s > log_at_s:
                log_at_s = clock.passed_s + LOG_EVERY_S
                _log(position, found, task.num_steps, clock)
            save_if_due(position)


def _waited_for(shares: Iterator[Share], clock: Clock) -> Iterator[Share]:
    while True:
        began_s = time.monotonic()
        share = next(shares, None)
        clock.waited_s += time.monotonic() - began_s
        if share is None:
            return
        yield share


def _add(position: Position, found: Mapping[str, float]) -> None:
    for name, value in found.items():
        position.sums[name] = position.sums.get(name, 0.0) + value
        position.counts[name] = position.counts.get(name, 0.0) + 1


def _advance(position: Position, share: Share, steps_per_epoch: int, *, is_fine: bool, is_trouble: bool) -> None:
    position.num_steps += 1
    position.num_samples += sum(share.sizes)
    position.num_skipped += not is_fine
    position.skipped_in_row = position.skipped_in_row + is_trouble if not is_fine else 0
    for name, count in share.counts.items():
        position.told[name] = position.told.get(name, 0.0) + count
    position.step += 1
    if position.step == steps_per_epoch:
        position.epoch, position.step = position.epoch + 1, 0


def _progress(position: Position, found: Mapping[str, float], num_steps: int, clock: Clock) -> Progress:
    return Progress(
        epoch=max(position.epoch - (position.step == 0), 0),
        step=position.num_steps,
        num_steps=num_steps,
        loss=found["loss"] if math.isfinite(found["loss"]) else 0.0,
        samples_per_s=clock.num_samples / clock.passed_s,
        steps_per_s=clock.num_steps / clock.passed_s,
    )


def _log(position: Position, found: Mapping[str, float], steps_per_epoch: int, clock: Clock) -> None:
    logger.info(
        "epoch %d, step %d of %d: loss %.4f, %.1f samples/s, %.1f %% of the time waited for data, %d steps skipped",
        position.epoch,
        position.step,
        steps_per_epoch,
        found["loss"],
        clock.num_samples / clock.passed_s,
        100 * clock.data_wait,
        position.num_skipped,
    )


class _Buffers:
    """Running statistics as they were before a step: one that is skipped leaves no trace."""

    def __init__(self, model: nn.Module) -> None:
        self._buffers: list[Tensor] = list(model.buffers())
        self._before = [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def note(self) -> None:
        """Take down the statistics."""
        if self._buffers:
            torch._foreach_copy_(self._before, self._buffers)

    @torch.no_grad()
    def restore(self) -> None:
        """Bring them back."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._before)
