"""The weighted mean of updates, written tensor by tensor: memory does not grow with sites or with the model.

Equal to Flower's FedAvg (``flwr.serverapp.strategy.strategy_utils.aggregate_arrayrecords``) to the bit on float32:
the same products, added in the same order.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.protocol.payload import Payload, PayloadWriter
from mammofed_shared.protocol.plan import PayloadReference
from mammofed_shared.protocol.task_spec import TaskSpec

BLOCK_VALUES = 2**22
"""Values of one row block: 16 MB in float32, whatever the size of the tensor."""


def weighted_mean(updates: Sequence[tuple[Path, float]], spec: TaskSpec, target: Path) -> PayloadReference:
    """Write the mean of the updates as a payload.

    Args:
        updates: payload file and weight of each; weights above 0. All files hold exactly the tensors of ``spec``.
        spec: says of each tensor whether it is averaged (parameters, float buffers) or the largest is kept (counters).
        target: where the mean is written, whole or not at all.

    Returns:
        Digest and size of the mean.
    """
    total = sum(weight for _, weight in updates)
    shares = [weight / total for _, weight in updates]
    with ExitStack() as stack:
        payloads = [stack.enter_context(Payload(path)) for path, _ in updates]
        first = payloads[0]
        names = sorted(first.entries, key=lambda name: first.entries[name].start)
        writer = stack.enter_context(PayloadWriter(target, _header(first, names)))
        for name in names:
            keep_largest = spec.tensors[name].kind == "counter"
            for blocks in _row_blocks([payload[name] for payload in payloads]):
                writer.write(_largest(blocks) if keep_largest else _mean(blocks, shares))
    return writer.reference


def _header(payload: Payload, names: Sequence[str]) -> dict[str, Any]:
    header: dict[str, Any] = {"__metadata__": {"numbers": json.dumps({})}}
    for name in names:
        entry = payload.entries[name]
        header[name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.start, entry.end],
        }
    return header


def _row_blocks(arrays: Sequence[NDArray[Any]]) -> Iterator[list[NDArray[Any]]]:
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, BLOCK_VALUES):
        yield [array[start : start + BLOCK_VALUES] for array in flat]


def _mean(blocks: Sequence[NDArray[Any]], shares: Sequence[float]) -> NDArray[Any]:
    mean = blocks[0] * shares[0]
    for block, share in zip(blocks[1:], shares[1:], strict=True):
        mean += block * share
    return mean


def _largest(blocks: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.asarray(np.maximum.reduce(list(blocks)))
