"""Losses and gradients of one step, over any number of processes and chunks. It knows no task, no site and no file.

The graph is cut at what the model says of each sample (its embeddings). The loss sees those of all samples of the
step, of every process and chunk; its gradient at them then flows into the model, chunk by chunk. So the contrastive
batch is bound by neither one process nor the memory for activations. With several chunks the model is computed twice,
the first time without a graph (GradCache: Gao et al. 2021, *Scaling Deep Contrastive Learning Batch Size under Memory
Limited Setup*); with one chunk, once, as in any other loop.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mammofed_shared.models.batch_norm import replaying
from mammofed_shared.training.engine import Engine
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.share import UNTOLD, Share, chunk_rows

Precision = Literal["fp32", "bf16", "fp16"]
_LOW: Mapping[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Losses:
    """Losses of a step: the one to minimise, its parts by the names under which they are released, and, where the
    task can say it, the loss of each sample."""

    loss: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    rows: Tensor | None = None


class Trainable(Protocol):
    """What the loop needs of a task and its data at one site."""

    @property
    def model(self) -> nn.Module:
        """What is trained. Called with ``Share.inputs`` it gives tensors whose rows are samples."""

    @property
    def num_steps(self) -> int:
        """Steps of one epoch."""

    def shares(self, seed: int, epoch: int, start: int) -> Iterator[Share]:
        """This process's shares of an epoch's steps from step ``start`` on, in order; equal for equal arguments."""

    def losses(self, outputs: tuple[Tensor, ...]) -> Losses:
        """Losses of the model's outputs for all samples of a step."""

    def after_step(self, engine: Engine) -> None:
        """What must hold after each optimizer step; every process calls it."""

    def numbers(self) -> dict[str, float]:
        """Numbers of the task after training, as they may leave the site."""


@runtime_checkable
class BeginsEpochs(Protocol):
    """A task that has something to do before the first step of each epoch."""

    def begin_epoch(self, seed: int, epoch: int) -> None:
        """Called by every process, after a cut again where no step of the epoch was kept. May change the weights, to
        the same values in every process."""


class Gradients(Protocol):
    """How a step comes to its gradients; ``accumulate_gradients`` is the usual way."""

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
        """Leave a step's gradients in the engine, and give its losses, ``loss`` among them."""


def accumulate_gradients(
    task: Trainable,
    engine: Engine,
    group: WorkerGroup,
    share: Share,
    precision: Precision,
    micro_batch: int | None,
    seed: int,
) -> dict[str, float]:
    """Leave a step's gradients in the engine, and give its losses; no gradient where the loss is not finite.

    Args:
        share: this process's samples.
        micro_batch: largest number of samples in a chunk.
        seed: of this step. Each chunk draws (dropout) from a generator of its own, so a repeated chunk draws the same.

    Returns:
        ``loss``, the task's parts, and ``loss/d1`` … for the data sets that stand in the step.
    """
    chunks = chunk_rows(share.sizes, group.rank, micro_batch)

    def forward(number: int) -> tuple[Tensor, ...]:
        torch.manual_seed(_chunk_seed(seed, group.rank, number))
        inputs = share.on(group.device, chunks[number])
        # A context a chunk: weights that autocast has cast without a graph must not serve where there is one.
        with autocast(group.device, precision):
            return engine.forward(inputs)

    is_cached = len(chunks) > 1
    with torch.no_grad() if is_cached else nullcontext():
        outputs = [forward(number) for number in range(len(chunks))]
    leaves = tuple(
        group.gather_rows(torch.cat(parts).detach(), share.sizes).requires_grad_()
        for parts in zip(*outputs, strict=True)
    )
    losses = task.losses(leaves)
    found = _numbers(losses, share)
    if not torch.isfinite(torch.tensor(found["loss"])):
        return found
    engine.scaled(losses.loss).backward()  # type: ignore[no-untyped-call]
    first = sum(share.sizes[: group.rank])
    for number, rows in enumerate(chunks):
        # Engines average over processes; each sample's gradient counts whole.
        wanted = [_rows(leaf, first, rows) * group.size for leaf in leaves]
        with replaying(task.model) if is_cached else nullcontext(), engine.chunk(is_last=number + 1 == len(chunks)):
            given = forward(number) if is_cached else outputs[number]
            # Its gradient at each output is the wanted one; engines only take a scalar.
            stand_in = torch.stack([(out * grad).sum() for out, grad in zip(given, wanted, strict=True)]).sum()
            engine.backward(stand_in)
    return found


def step_seed(seed: int, epoch: int, step: int) -> int:
    """Seed of all that one step draws: a function of its place, so that no random state needs to be kept."""
    return _hashed(f"{seed}/{epoch}/{step}")


def _chunk_seed(seed: int, rank: int, number: int) -> int:
    return _hashed(f"{seed}/{rank}/{number}")


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The run's precision, as the context of a forward pass."""
    return torch.autocast(device.type, _LOW.get(precision, torch.bfloat16), enabled=precision != "fp32")


def _rows(leaf: Tensor, first: int, rows: slice) -> Tensor:
    assert leaf.grad is not None, "a task's loss depends on all outputs of its model"
    return leaf.grad[first + rows.start : first + rows.stop]


def _numbers(losses: Losses, share: Share) -> dict[str, float]:
    """All losses as numbers, fetched from the device at once."""
    names = ["loss", *losses.parts]
    values = [losses.loss, *losses.parts.values()]
    fetched = torch.cat([value.detach().reshape(-1).float() for value in values])
    found = dict(zip(names, fetched.tolist(), strict=True))
    if losses.rows is not None:
        rows = losses.rows.detach().float().cpu().numpy()
        for dataset in set(share.datasets.tolist()) - {UNTOLD}:
            found[f"loss/d{dataset + 1}"] = float(rows[share.datasets == dataset].mean())
    return found
