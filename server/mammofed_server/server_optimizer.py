"""The coordinator's own optimizer: FedAdam and FedYogi (Reddi et al. 2021, *Adaptive Federated Optimization*).

The mean change of a round is taken for a gradient. Both are computed as Flower 1.41 computes them
(``flwr.serverapp.strategy.FedAdam``, ``FedYogi``), which corrects FedAdam's first steps as Kingma & Ba (2015) do and
counts them from 2. Steps are counted from the beginning of the phase.

<work>/first-moments.safetensors     of each parameter; numbers: phase, steps
<work>/second-moments.safetensors    likewise
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from mammofed_server.aggregation import BLOCK_VALUES, Block, names_in_order
from mammofed_shared.checkpoint import STATE_FILE
from mammofed_shared.config.strategy import FedAdamSettings, FedYogiSettings
from mammofed_shared.protocol.payload import Payload, PayloadWriter
from mammofed_shared.protocol.plan import PayloadReference

FIRST_FILE = "first-moments.safetensors"
SECOND_FILE = "second-moments.safetensors"
MOMENT_FILES = (FIRST_FILE, SECOND_FILE)
"""Beside a checkpoint's state where its phase has such an optimizer."""

OptimizerSettings: TypeAlias = FedAdamSettings | FedYogiSettings


class ServerOptimizer:
    """One step, tensor by tensor and block by block; the moments are read and written as the blocks come.

    Used as a context: leaving it commits the new moments, an exception removes them.

    Args:
        before: folder of the checkpoint that the step starts from; its moments are gone on from if they are of the
            same phase, else they begin at 0.
        phase: number of the phase.
        parameters: names of the tensors that are stepped; others are never asked for.
        work: where the new moments are written.
    """

    def __init__(
        self,
        settings: OptimizerSettings,
        before: Path,
        phase: int,
        parameters: frozenset[str],
        work: Path,
    ) -> None:
        self._settings = settings
        self._before = before
        self._phase = phase
        self._parameters = parameters
        self._work = work
        self._name = ""
        self._moments: Iterator[tuple[Block, Block]] = iter(())
        self._stack = ExitStack()

    def __enter__(self) -> "ServerOptimizer":
        with ExitStack() as stack:
            self._kept = _kept(self._before, self._phase, stack)
            self._steps = 1 + (int(self._kept[0].numbers["steps"]) if self._kept else 0)
            numbers = {"phase": float(self._phase), "steps": float(self._steps)}
            state = stack.enter_context(Payload(self._before / STATE_FILE))
            header = _header(state, self._parameters, numbers)
            self._writers = tuple(
                stack.enter_context(PayloadWriter(self._work / name, header)) for name in MOMENT_FILES
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    @property
    def files(self) -> Mapping[str, tuple[Path, PayloadReference]]:
        """The new moments, by the name of the file; known when the context is left."""
        return MappingProxyType(
            {
                name: (self._work / name, writer.reference)
                for name, writer in zip(MOMENT_FILES, self._writers, strict=True)
            }
        )

    def step(self, name: str, before: Block, mean: Block) -> Block:
        """The values after the step; blocks of one tensor come in order, and a tensor's one after the other."""
        if name != self._name:
            self._name, self._moments = name, self._blocks(name, before.size)
        zero = np.zeros_like(mean)
        kept = next(self._moments, (zero, zero))
        first, second = moments_after(self._settings, *kept, mean - before)
        for writer, moment in zip(self._writers, (first, second), strict=True):
            writer.write(moment)
        return stepped(self._settings, self._steps, before, first, second)

    def _blocks(self, name: str, size: int) -> Iterator[tuple[Block, Block]]:
        if self._kept:
            first, second = self._kept
            yield from zip(first.blocks(name, BLOCK_VALUES), second.blocks(name, BLOCK_VALUES), strict=True)


def moments_after(settings: OptimizerSettings, first: Block, second: Block, change: Block) -> tuple[Block, Block]:
    """Both moments after a round with this mean change (Reddi et al. 2021, algorithm 2)."""
    squared = change**2
    first = settings.beta_1 * first + (1 - settings.beta_1) * change
    if isinstance(settings, FedAdamSettings):
        return first, settings.beta_2 * second + (1 - settings.beta_2) * squared
    return first, second - (1.0 - settings.beta_2) * squared * np.sign(second - squared)


def stepped(settings: OptimizerSettings, steps: int, before: Block, first: Block, second: Block) -> Block:
    """The values after step number ``steps``, in the dtype of ``before``."""
    rate: float | np.float64 = settings.server_learning_rate
    if isinstance(settings, FedAdamSettings):
        exponent = steps + 1.0  # Flower's; it takes this rate as numpy's float64, and so the whole step in float64
        rate *= np.sqrt(1 - np.power(settings.beta_2, exponent))
        rate /= 1 - np.power(settings.beta_1, exponent)
    return np.asarray(before + rate * first / (np.sqrt(second) + settings.tau), dtype=before.dtype)


def _kept(folder: Path, phase: int, stack: ExitStack) -> tuple[Payload, ...]:
    if not (folder / FIRST_FILE).exists():
        return ()
    kept = tuple(stack.enter_context(Payload(folder / name)) for name in MOMENT_FILES)
    return kept if kept[0].numbers["phase"] == phase else ()


def _header(state: Payload, parameters: frozenset[str], numbers: Mapping[str, float]) -> dict[str, Any]:
    header: dict[str, Any] = {"__metadata__": {"numbers": json.dumps(numbers, sort_keys=True)}}
    offset = 0
    for name in names_in_order(state):
        if name in parameters:
            entry = state.entries[name]
            end = offset + entry.end - entry.start
            header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [offset, end]}
            offset = end
    return header
