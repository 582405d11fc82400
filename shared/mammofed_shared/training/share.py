"""One process's share of the samples of a step, and how it is cut into chunks that fit the memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

UNTOLD = -1
"""Number of the data sets of which nothing is told apart."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one process computes of a step, on the CPU.

    ``inputs`` are the arguments of the model, rows of each are samples. ``sizes`` says how many samples every process
    of the group has. ``datasets`` is the number (0, 1, …, or ``UNTOLD``) of the data set of every sample of the step,
    of all processes. ``counts`` are told at the end of the visit as sums.
    """

    inputs: tuple[NDArray[Any], ...]
    sizes: tuple[int, ...]
    datasets: NDArray[np.int64]
    counts: Mapping[str, int] = field(default_factory=dict)

    def on(self, device: torch.device, rows: slice) -> tuple[Tensor, ...]:
        """Some of the samples, on a device."""
        return tuple(torch.from_numpy(array[rows]).to(device, non_blocking=True) for array in self.inputs)


def chunk_rows(sizes: Sequence[int], rank: int, micro_batch: int | None) -> list[slice]:
    """The chunks of one process's samples; every process of the group has as many.

    Their sizes differ by at most one and are at most ``micro_batch``, unless another process has too few samples for
    so many chunks: processes that talk to each other in a chunk must all have it.
    """
    count = 1 if micro_batch is None else min(-(-max(sizes) // micro_batch), min(sizes))
    edges = np.linspace(0, sizes[rank], max(count, 1) + 1).round().astype(int).tolist()
    return [slice(start, stop) for start, stop in pairwise(edges)]
