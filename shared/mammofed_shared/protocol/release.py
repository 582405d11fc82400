"""What an update may hold: checked by the site before it leaves (egress) and by the coordinator when it arrives."""

import math
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate

import numpy as np

from mammofed_shared.config.sparse_autoencoder import SaeSettings
from mammofed_shared.config.tasks import AT_MOST_1, COUNTS, DATASETS, SHARES, SIGNED, TASKS, TaskSettings
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.protocol.histogram import EDGES, check_histograms
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
        if _declared_form(name, plan.task) not in allowed:
            raise Refused(RefusalCode.METRIC_NOT_ALLOWED, f"a metric is not on the list of task {plan.task.name}")
        _check_value(name, value)
    if plan.kind == "train" and not metrics.get(declaration.weight_key, 0) > 0:
        raise Refused(RefusalCode.METRIC_NOT_ALLOWED, f"{declaration.weight_key} is missing or not above 0")
    if plan.kind == "evaluate":
        _check_suppressed(metrics)
        check_histograms(metrics)


def _declared_form(name: str, task: TaskSettings) -> str:
    """The name with findings, data sets, levels and edges replaced by the placeholders of ``TaskDeclaration``."""
    if "*" in name or "#" in name:  # a placeholder itself is no name
        return ""
    first, *rest = name.split("/")
    return "/".join([first, *(_placeholder(part, task) for part in rest)])


def _placeholder(part: str, task: TaskSettings) -> str:
    if part in task.findings:
        return "*"
    if isinstance(task, SaeSettings) and part in task.level_names:
        return "k#"
    if part in DATASETS:
        return "d#"
    return "#" if part in EDGES else part


def _check_value(name: str, value: float) -> None:
    words = name.split("/")
    word = words[1] if words[0] in ("received", "sent") else words[0]
    if not math.isfinite(value):
        raise Refused(RefusalCode.METRIC_NOT_ALLOWED, f"{name} is not finite")
    if word in SHARES and not 0 <= value <= 1:
        raise Refused(RefusalCode.METRIC_NOT_ALLOWED, f"{name} is not between 0 and 1")
    if word in SIGNED and not -1 <= value <= 1:
        raise Refused(RefusalCode.METRIC_NOT_ALLOWED, f"{name} is not between -1 and 1")
    if word in AT_MOST_1 and value > 1:
        raise Refused(RefusalCode.METRIC_NOT_ALLOWED, f"{name} is above 1")
    if word in COUNTS and (value < 0 or value != int(value)):
        raise Refused(RefusalCode.METRIC_NOT_ALLOWED, f"{name} is not a count")


def _check_suppressed(metrics: Mapping[str, float]) -> None:
    """Of what is not told (a finding, a year, a group of it) nothing else is told, and the number says no more."""
    told = Counter(part for name in metrics for part in accumulate(name.split("/")[1:], "{}/{}".format))
    for name, value in metrics.items():
        word, _, part = name.partition("/")
        if word == "suppressed" and (value != 1 or told[part] > 1):
            raise Refused(RefusalCode.METRIC_NOT_ALLOWED, f"{name} is not 1, or not all that is told of it")
