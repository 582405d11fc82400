"""Updates folded into one payload, row block by row block: memory grows neither with the model nor with the file.

Of each update one block is mapped at a time and given back before the next: 2 updates take 8 MB, 16 take 50 MB, however
large they are (``tests/server/test_folding_memory.py``).
``mean`` is that of Flower's FedAvg (``flwr.serverapp.strategy.strategy_utils.aggregate_arrayrecords``) to the
bit on float32: the same products, added in the same order.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.protocol.payload import Payload, PayloadWriter
from mammofed_shared.protocol.plan import PayloadReference

BLOCK_VALUES = 2**18
"""Values of one row block: 1 MB in float32, whatever the size of the tensor. From 2**16 to 2**22 all are as fast;
smaller ones take no less memory, for the kernel maps 2 MB at once."""

Block: TypeAlias = NDArray[Any]
Combine: TypeAlias = Callable[[str, Sequence[Block]], Block]
"""A tensor's name, and the same values of each file → the values that are written. Called in the order of the file."""


def fold_files(files: Sequence[Path], target: Path, combine: Combine) -> PayloadReference:
    """Write a payload of the first file's tensors, each value made of that of all files.

    Args:
        files: payloads that hold exactly the same tensors, each in an order of its own.
        target: written whole or not at all.
    """
    with ExitStack() as stack:
        payloads = [stack.enter_context(Payload(path)) for path in files]
        names = names_in_order(payloads[0])
        writer = stack.enter_context(PayloadWriter(target, payload_header(payloads[0], names)))
        for name in names:
            for blocks in zip(*(payload.blocks(name, BLOCK_VALUES) for payload in payloads), strict=True):
                writer.write(combine(name, blocks))
    return writer.reference


def names_in_order(payload: Payload) -> list[str]:
    """The tensors of a payload as they lie in its file."""
    return sorted(payload.entries, key=lambda name: payload.entries[name].start)


def payload_header(payload: Payload, names: Sequence[str]) -> dict[str, Any]:
    """The header of a payload without numbers that has the layout of another one."""
    header: dict[str, Any] = {"__metadata__": {"numbers": json.dumps({})}}
    for name in names:
        entry = payload.entries[name]
        header[name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.start, entry.end],
        }
    return header


def shares_of(weights: Sequence[float]) -> list[float]:
    """Weights that add up to 1."""
    total = sum(weights)
    return [weight / total for weight in weights]


def mean(blocks: Sequence[Block], shares: Sequence[float]) -> Block:
    """The weighted mean, value by value."""
    total = blocks[0] * shares[0]
    for block, share in zip(blocks[1:], shares[1:], strict=True):
        total += block * share
    return total


def largest(blocks: Sequence[Block]) -> Block:
    """The largest, value by value."""
    return np.asarray(np.maximum.reduce(list(blocks)))
