"""Means that one site cannot bend as it likes: a bound on each site's change, and the trimmed mean.

Every sum is made in an order of its own, without the processor's vector reductions, so that it has the same bits on
every machine: whoever verifies a run elsewhere finds what the coordinator found.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from mammofed_server.aggregation import BLOCK_VALUES, Block
from mammofed_shared.protocol.payload import Payload


def change_norms(before: Path, updates: Sequence[Path], parameters: Sequence[str]) -> list[float]:
    """L2 norm of what each update changes in a state, over the named tensors.

    Args:
        before: the state's payload.
        updates: payloads with the same tensors.
    """
    squares = [0.0] * len(updates)
    with ExitStack() as stack:
        payloads = [stack.enter_context(Payload(path)) for path in (before, *updates)]
        for name in parameters:
            for was, *blocks in zip(*(payload.blocks(name, BLOCK_VALUES) for payload in payloads), strict=True):
                for index, block in enumerate(blocks):
                    squares[index] += _sum_of_squares(np.subtract(block, was, dtype=np.float64))
    return [float(np.sqrt(total)) for total in squares]


def clip_scales(norms: Sequence[float], most: float) -> list[float]:
    """What each change is multiplied by, so that its norm is at most ``most``; 1: it stays as it is."""
    return [most / norm if norm > most else 1.0 for norm in norms]


def clipped(before: Block, block: Block, scale: float) -> Block:
    """An update's values after its change was scaled; to the bit as they came where nothing is clipped."""
    return block if scale == 1 else np.asarray(before + (block - before) * scale)


def trimmed_mean(blocks: Sequence[Block], num_trimmed: int) -> Block:
    """Value by value the unweighted mean without the largest and smallest (Yin et al. 2018, definition 2).

    Args:
        blocks: the same values of each site; more than ``2 * num_trimmed``.
        num_trimmed: how many are left out at each end.
    """
    ordered = np.sort(np.stack(blocks), axis=0)
    kept = ordered[num_trimmed : len(blocks) - num_trimmed]
    total = np.zeros_like(kept[0])  # from +0 on: sorting does not tell it from -0
    for row in kept:
        total += row
    return np.asarray(total / len(kept), dtype=total.dtype)


def _sum_of_squares(values: Block) -> float:
    squares = np.square(values)
    while squares.size > 1:
        half = squares.size // 2
        rest = squares[2 * half :]
        squares = squares[:half] + squares[half : 2 * half]
        squares[: rest.size] += rest
    return float(squares.sum())
