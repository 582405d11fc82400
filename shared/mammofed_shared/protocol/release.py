"""What an update may hold: checked by the site before it leaves (egress) and by the coordinator when it arrives."""

import math
from collections.abc import Mapping

import numpy as np

from mammofed_shared.config.tasks import TASKS
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.protocol.quality import check_counts

_FINITE_BLOCK = 2**20


def check_tensors(update: Payload, expected: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Refuse an update whose tensors are not exactly the expected ones, or not finite.

    Args:
        update: the opened payload.
        expected: name → (safetensors dtype, shape).

    Raises:
        Refused: METRIC_NOT_ALLOWED, TENSOR_NAMES, TENSOR_DTYPE, TENSOR_SHAPE, NOT_FINITE; the message names the tensor.
    """
    if update.numbers:  # the next site receives this file; numbers go to the coordinator alone
        raise Refused(RefusalCode.METRIC_NOT_ALLOWED, "an update's file holds tensors only")
    if set(update.entries) != set(expected):
        missing = sorted(set(expected) - set(update.entries))[:3]
        extra = len(set(update.entries) - set(expected))
        raise Refused(
            RefusalCode.TENSOR_NAMES,
            f"expected {len(expected)} tensors, found {len(update.entries)}; missing {missing}, {extra} unknown",
        )
    for name, (dtype, shape) in expected.items():
        entry = update.entries[name]
        if entry.dtype != dtype:
            raise Refused(RefusalCode.TENSOR_DTYPE, f"{name}: expected {dtype}, found {entry.dtype}")
        if entry.shape != shape:
            raise Refused(RefusalCode.TENSOR_SHAPE, f"{name}: expected {shape}, found {entry.shape}")
    for name in expected:
        if not _is_finite(update, name):
            raise Refused(RefusalCode.NOT_FINITE, f"{name} holds a value that is not finite")


def _is_finite(update: Payload, name: str) -> bool:
    dtype = update.entries[name].dtype
    for block in update.blocks(name, _FINITE_BLOCK):
        if dtype == "BF16":  # its bits: all ones in the exponent are an infinity or NaN
            if bool(np.any((block & 0x7F80) == 0x7F80)):
                return False
        elif block.dtype.kind == "f" and not bool(np.isfinite(block).all()):
            return False
    return True


def check_metrics(plan: Plan, metrics: Mapping[str, float]) -> None:
    """Refuse any number that the plan's task does not declare, and any that is not finite; for a query, all but counts.

    Raises:
        Refused: METRIC_NOT_ALLOWED.
    """
    if plan.kind == "query":
        check_counts(metrics)
        return
    declaration = TASKS[plan.task.name]
    allowed = declaration.train_metrics if plan.kind == "train" else declaration.evaluate_metrics
    for name, value in metrics.items():
        family, slash, finding = name.partition("/")
        known = name in allowed or (bool(slash) and f"{family}/*" in allowed and finding in plan.task.findings)
        if not known:
            raise Refused(RefusalCode.METRIC_NOT_ALLOWED, f"a metric is not on the list of task {plan.task.name}")
        if not math.isfinite(value):
            raise Refused(RefusalCode.METRIC_NOT_ALLOWED, f"{name} is not finite")
    if plan.kind == "train" and not metrics.get(declaration.weight_key, 0) > 0:
        raise Refused(RefusalCode.METRIC_NOT_ALLOWED, f"{declaration.weight_key} is missing or not above 0")
