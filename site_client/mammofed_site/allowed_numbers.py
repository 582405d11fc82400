"""Leaves out the numbers that the policy does not let leave, so that what is left is still a whole answer.

Some numbers stand for each other: histograms hold exactly the exams that are counted, and a table of counts says how
many of its cells are hidden. Where one of such a group may not leave, none does.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from mammofed_shared.config.policy import PolicySettings
from mammofed_shared.config.tasks import TASKS
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.protocol.histogram import NEGATIVE, POSITIVE, is_histogram
from mammofed_shared.protocol.plan import Plan, Progress
from mammofed_shared.protocol.quality import TABLES, TOTALS
from mammofed_site.wire_rules import MOST_EPOCHS, MOST_STEPS, round_for_wire

_HISTOGRAM_GROUP = (POSITIVE, NEGATIVE, "num_labelled", "num_positive")


_OF_TRAINING_DATA = frozenset({"loss", "samples_per_s"})
"""What noise on weights does not cover; how many steps are made in a second is seen from their count anyway."""


def is_allowed(policy: PolicySettings, name: str) -> bool:
    """Whether a number of this name may leave."""
    return policy.metrics is None or any(fnmatchcase(name, pattern) for pattern in policy.metrics)


def allowed_numbers(plan: Plan, metrics: Mapping[str, float], policy: PolicySettings) -> dict[str, float]:
    """The numbers that may leave, of all that an answer would tell.

    Raises:
        Refused: POLICY, a training visit may not tell the number by which its update is weighed.
    """
    if policy.metrics is None:
        return dict(metrics)
    if plan.kind == "query":
        return _allowed_counts(metrics, policy)
    weight = TASKS[plan.task.name].weight_key
    if plan.kind == "train" and not is_allowed(policy, weight):
        raise Refused(
            RefusalCode.POLICY,
            f"`metrics` does not allow {weight}, by which updates are weighed: allow it, or take no part in training",
        )
    told = {name: value for name, value in metrics.items() if is_allowed(policy, name)}
    cut = {name.split("/")[1] for name in metrics if name not in told and name.split("/")[0] in _HISTOGRAM_GROUP}
    return {name: value for name, value in told.items() if not (is_histogram(name) and name.split("/")[1] in cut)}


def _allowed_counts(metrics: Mapping[str, float], policy: PolicySettings) -> dict[str, float]:
    """Totals all together; a table whole, and only beside the totals. That a table is hidden is always told."""
    is_told = all(is_allowed(policy, name) for name in TOTALS)
    left = {name: metrics[name] for name in TOTALS if is_told and name in metrics}
    for table in TABLES:
        cells = [table.cell(word) for word in table.words]
        if is_told and all(is_allowed(policy, name) for name in cells):
            left |= {name: metrics[name] for name in (*cells, table.suppressed) if name in metrics}
        else:
            left[table.suppressed] = float(len(cells))
    return left


def told_progress(progress: Progress, policy: PolicySettings | None) -> dict[str, Any]:
    """How far a visit is, as it may be told while it is under way; a worker's word is taken for numbers only.

    Args:
        policy: None where it cannot be read; then nothing is told.
    """
    if policy is None:
        return {}
    whole = {name: min(max(getattr(progress, name), 0), MOST_STEPS) for name in ("epoch", "step", "num_steps")}
    measured = {
        name: round_for_wire(getattr(progress, name))
        for name in ("loss", "samples_per_s", "steps_per_s")
        if is_allowed(policy, name) and not (policy.privacy.is_noisy and name in _OF_TRAINING_DATA)
    }
    return {**whole, "epoch": min(whole["epoch"], MOST_EPOCHS), **measured}
