"""Clipping and noise on an update: (update − received state) is shortened to a norm, then noise is added to each value.

Works on files, block by block, so that the parent's memory stays flat. All floating-point tensors but running
statistics are clipped together and each gets noise, trained or not: one that was left out would tell of the data
without any. Running statistics must be frozen where there is noise; counters tell no more than the number of steps.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.noise import NoiseStream, grid_of, on_grid
from mammofed_shared.protocol.payload import Payload, PayloadWriter
from mammofed_shared.protocol.task_spec import CONTROL
from mammofed_site.update_norm import STATISTICS, update_norm

_BLOCK = 2**17
"""Values at once; their copies in float64 take some 10 MB."""
_FLOATS = ("F32", "F64")
_COUNTERS = ("I32", "I64")


def measured_norm(update: Path, state: Path, *, are_statistics_frozen: bool = False) -> float:
    """The norm of an update that can be clipped and noised, as ``update_norm`` finds it.

    Raises:
        Refused: NOT_FINITE; TENSOR_NAMES, TENSOR_SHAPE, TENSOR_DTYPE: the files are not alike; POLICY: statistics of
            batch norm have moved, although they are to be frozen, or there are control variates.
    """
    norm = update_norm(state, update)
    if not math.isfinite(norm):
        raise Refused(RefusalCode.NOT_FINITE, "the update or the state holds a value that is not finite")
    with Payload(update) as made, Payload(state) as came:
        for name, entry in made.entries.items():
            if entry.dtype != came.entries[name].dtype or entry.dtype not in (*_FLOATS, *_COUNTERS):
                raise Refused(RefusalCode.TENSOR_DTYPE, f"{name}: clipping knows F32 and F64, found {entry.dtype}")
            if name.startswith(CONTROL):  # the policy has begun to ask for this in the midst of a visit
                raise Refused(RefusalCode.POLICY, "control variates (SCAFFOLD) would leave beside what is clipped")
            if are_statistics_frozen and name.rpartition(".")[2] in STATISTICS:
                _require_equal(made, came, name)
    return norm


def write_clipped(update: Path, state: Path, out: Path, *, norm: float, clip_norm: float) -> None:
    """Write an update whose distance from the state is at most ``clip_norm``.

    Args:
        norm: ``measured_norm`` of the same files.
    """
    with Payload(update) as made, Payload(state) as came:
        _write(made, came, out, _weights(made), scale=_scale(norm, clip_norm), deviation=0.0, stream=None)


def write_noised(
    update: Path, state: Path, out: Path, *, norm: float, clip_norm: float, noise_multiplier: float, key: bytes
) -> None:
    """Write an update that is clipped and carries Gaussian noise of ``noise_multiplier`` × ``clip_norm`` on each value.

    Equal files and an equal key give equal bytes, so that a restart gives no second draw of the noise. Statistics of
    batch norm get none: they are frozen, so they tell of no data.

    Args:
        norm: ``measured_norm`` of the same files, with frozen statistics.
    """
    with Payload(update) as made, Payload(state) as came:
        deviation, stream = noise_multiplier * clip_norm, NoiseStream(key)
        _write(made, came, out, _weights(made), scale=_scale(norm, clip_norm), deviation=deviation, stream=stream)


def _weights(payload: Payload) -> list[str]:
    """Names of the floating-point tensors but running statistics."""
    return [
        name
        for name, entry in payload.entries.items()
        if entry.dtype in _FLOATS and name.rpartition(".")[2] not in STATISTICS
    ]


def _in_order(payload: Payload) -> list[str]:
    return sorted(payload.entries, key=lambda name: (payload.entries[name].start, payload.entries[name].end))


def _require_equal(made: Payload, came: Payload, name: str) -> None:
    for ours, theirs in _pairs(made, came, name):
        if ours.tobytes() != theirs.tobytes():
            raise Refused(RefusalCode.POLICY, f"{name} has moved, although batch norm is to be frozen")


def _pairs(made: Payload, came: Payload, name: str) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    return zip(made.blocks(name, _BLOCK), came.blocks(name, _BLOCK), strict=True)


def _scale(norm: float, clip_norm: float) -> float:
    return min(1.0, clip_norm / norm) if norm else 1.0


def _write(
    made: Payload,
    came: Payload,
    out: Path,
    changed: list[str],
    *,
    scale: float,
    deviation: float,
    stream: NoiseStream | None,
) -> None:
    header: dict[str, Any] = {"__metadata__": {"numbers": "{}"}}
    order = _in_order(made)
    for name in order:
        entry = made.entries[name]
        header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [entry.start, entry.end]}
    grid = grid_of(deviation) if stream else 0.0
    with PayloadWriter(out, header) as writer:
        for name in order:
            for ours, theirs in _pairs(made, came, name):
                if name not in changed or (scale == 1.0 and stream is None):
                    writer.write(ours)
                    continue
                difference = (ours.astype(np.float64) - theirs) * scale
                if stream is not None:
                    difference = on_grid(difference + deviation * stream.normals(difference.size), grid)
                writer.write((theirs + difference).astype(ours.dtype))
