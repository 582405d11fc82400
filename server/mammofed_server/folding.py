"""The updates of a turn become the next state: every strategy's mathematics, on files.

    <work>/state.safetensors            the next state
    <work>/first-moments.safetensors    of the coordinator's optimizer, where the phase has one
    <work>/second-moments.safetensors

Parameters, buffers, counters and control variates are kept apart as ``TaskSpec`` says: float buffers are averaged (or
trimmed), of counters the largest is kept, and clipping and server optimizers touch parameters only. Formulas and
sources: docs/strategies.md.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mammofed_server.aggregation import Block, fold_files, largest, mean, shares_of
from mammofed_server.robust import change_norms, clip_scales, clipped, trimmed_mean
from mammofed_server.schedule import Turn
from mammofed_server.server_optimizer import ServerOptimizer
from mammofed_shared.checkpoint import STATE_FILE
from mammofed_shared.config.strategy import FedAdamSettings, FedYogiSettings, ScaffoldSettings, TrimmedMeanSettings
from mammofed_shared.errors import RunStopped
from mammofed_shared.protocol.plan import PayloadReference
from mammofed_shared.protocol.task_spec import TaskSpec

PayloadFile: TypeAlias = tuple[Path, PayloadReference]
Centre: TypeAlias = Callable[[Sequence[Block]], Block]
"""The same values of each site → the one value of them."""


@dataclass(frozen=True, slots=True)
class SiteUpdate:
    """What one site gives to a fold; a weight above 0."""

    site: str
    path: Path
    reference: PayloadReference
    weight: float


@dataclass(frozen=True, slots=True)
class Folded:
    """What a turn's updates have become.

    ``state`` None: nothing came, and the state stays. ``optimizer`` are the files that belong beside the state, by
    their names there; None: those of the checkpoint before stay. ``norms`` is site → L2 norm of what it changed, where
    the phase clips.
    """

    state: PayloadFile | None = None
    optimizer: Mapping[str, PayloadFile] | None = None
    norms: Mapping[str, float] = field(default_factory=dict)


def fold(turn: Turn, before: Path, updates: Sequence[SiteUpdate], spec: TaskSpec, work: Path) -> Folded:
    """Fold a turn's updates; equal files give equal bytes, on any machine.

    Args:
        turn: of which the updates are; its phase says how.
        before: folder of the checkpoint that the turn started from.
        updates: those that came, in the order of the turn's visits.
        work: folder for what is made; emptied first.

    Raises:
        RunStopped: too few updates came for a trimmed mean.
    """
    if not updates:
        return Folded()
    if turn.phase.kind == "alternating":
        only = updates[0]
        return Folded((only.path, only.reference), {})  # adopted as it is: no byte is copied
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return _fold(turn, before, updates, spec, work)


def _fold(turn: Turn, before: Path, updates: Sequence[SiteUpdate], spec: TaskSpec, work: Path) -> Folded:
    strategy = turn.phase.strategy
    parameters = tuple(name for name, tensor in spec.tensors.items() if tensor.kind == "parameter")
    centre = _centre(turn, updates)
    norms: list[float] = []
    scales = [1.0] * len(updates)
    if not isinstance(strategy, ScaffoldSettings) and strategy.clip_norm is not None:
        norms = change_norms(before / STATE_FILE, [update.path for update in updates], parameters)
        scales = clip_scales(norms, strategy.clip_norm)
    with ExitStack() as stack:
        optimizer = None
        if isinstance(strategy, FedAdamSettings | FedYogiSettings):
            optimizer = stack.enter_context(
                ServerOptimizer(strategy, before, turn.phase_number, frozenset(parameters), work)
            )

        has_before = bool(norms) or optimizer is not None or isinstance(strategy, ScaffoldSettings)

        def combine(name: str, blocks: Sequence[Block]) -> Block:
            was, came = blocks[0], blocks[int(has_before) :]
            kind = spec.tensors[name].kind
            if kind == "counter":
                return largest(came)
            if kind == "control":
                return _controls_after(was, came, len(turn.visits))
            if kind == "buffer":
                return centre(came)
            middle = centre([clipped(was, block, scale) for block, scale in zip(came, scales, strict=True)])
            return optimizer.step(name, was, middle) if optimizer else middle

        target = work / STATE_FILE
        files = [before / STATE_FILE] * has_before + [update.path for update in updates]
        reference = fold_files(files, target, combine)
    return Folded(
        (target, reference),
        optimizer.files if optimizer else {},
        {update.site: norm for update, norm in zip(updates, norms, strict=False)},
    )


def _centre(turn: Turn, updates: Sequence[SiteUpdate]) -> Centre:
    strategy = turn.phase.strategy
    if isinstance(strategy, TrimmedMeanSettings):
        num_trimmed = strategy.num_trimmed(len(updates))
        if not num_trimmed:
            raise RunStopped(
                f"round {turn.round}: {len(updates)} of {len(turn.visits)} updates came, of which trim "
                f"{strategy.trim:g} leaves out none: a trimmed mean of them would be a mean that one site can bend"
            )
        return lambda blocks: trimmed_mean(blocks, num_trimmed)
    shares = shares_of([update.weight for update in updates])
    return lambda blocks: mean(blocks, shares)


def _controls_after(before: Block, changes: Sequence[Block], num_sites: int) -> Block:
    """c + (1/N) · Σ (c_i⁺ − c_i), over the sites that came (Karimireddy et al. 2020, equation 5)."""
    total = changes[0].copy()
    for change in changes[1:]:
        total += change
    return np.asarray(before + total / num_sites, dtype=before.dtype)
