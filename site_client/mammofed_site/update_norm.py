"""How far an update is from the state that came: one number, found block by block without holding either."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.config.policy import PolicySettings
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.protocol.task_spec import CONTROL

_BLOCK = 2**20
STATISTICS = ("running_mean", "running_var")
"""Last words of the names of floating-point tensors that are carried along and not trained (torch's batch norm)."""
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


def update_norm(state: Path, update: Path) -> float:
    """L2 norm of update − state over all floating-point tensors but running statistics and control variates, of which
    an update brings the change alone.

    Number types may differ. Memory stays at a few blocks.

    Raises:
        Refused: TENSOR_NAMES, TENSOR_SHAPE; the update's tensors are not those of the state.
    """
    total = 0.0
    with Payload(state) as came, Payload(update) as leaves:
        if set(came.entries) != set(leaves.entries):
            raise Refused(RefusalCode.TENSOR_NAMES, "the update's tensors are not those of the state that came")
        for name, entry in leaves.entries.items():
            is_carried = name.rpartition(".")[2] in STATISTICS or name.startswith(CONTROL)
            if entry.dtype not in _FLOATS or is_carried:
                continue
            if entry.shape != came.entries[name].shape:
                raise Refused(RefusalCode.TENSOR_SHAPE, f"{name}: {entry.shape} instead of {came.entries[name].shape}")
            before = (_values(block, came.entries[name].dtype) for block in came.blocks(name, _BLOCK))
            after = (_values(block, entry.dtype) for block in leaves.blocks(name, _BLOCK))
            for old, new in zip(before, after, strict=True):
                difference = new - old
                total += float(difference @ difference)
    return math.sqrt(total)


def _values(block: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    if dtype == "BF16":  # its bits are the upper half of a float32's
        block = (block.astype(np.uint32) << 16).view(np.float32)
    return block.astype(np.float64)


def check_norm(policy: PolicySettings, state: Path, update: Path) -> float | None:
    """The norm of an update that the policy lets leave; None where the policy sets no limit.

    Raises:
        Refused: UPDATE_NORM; also where the norm is no number.
    """
    if policy.largest_update_norm is None:
        return None
    norm = update_norm(state, update)
    if not norm <= policy.largest_update_norm:
        raise Refused(
            RefusalCode.UPDATE_NORM,
            f"the update is {norm:.4g} away from the state that came; `largest_update_norm` allows "
            f"{policy.largest_update_norm:.4g}. Look at the visit's loss for a diverging training",
        )
    return norm
