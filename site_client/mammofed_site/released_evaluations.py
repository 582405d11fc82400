"""One release for each model: what a site has told of a state's evaluation is told again, whoever asks.

    <site folder>/released-evaluations/<digest of the state>.json    what was told, finding by finding

Otherwise the same model, evaluated before and after one patient came or under another ``policy.least_cell``, would
tell of that patient by comparison. The same holds for the validation of a state that a training visit received. What
was told stays, what has not been told yet is added: another run may ask for another finding. The numbers of a risk are
added all together or not at all.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from mammofed_shared.config.base import Digest, Settings
from mammofed_shared.config.risk_metrics import OUTCOME, PROXY, TEACHER, YEARS
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.files import write_whole
from mammofed_shared.protocol.histogram import is_histogram
from mammofed_shared.protocol.plan import Plan
from mammofed_site.small_differences import small_difference

logger = logging.getLogger(__name__)

_OF_THIS_VISIT = frozenset({"duration_s"})
"""What an evaluation tells of itself and not of the data."""


_RISK = "risk"
_RISK_PARTS = frozenset({*YEARS, OUTCOME, PROXY, TEACHER})
"""Told together or not at all: which year or group may be told depends on which others are; they can be subtracted."""


class Part(Settings):
    """What was told together: the numbers of one finding, all numbers of a risk, or a number that belongs to none."""

    least_cell: int
    """Of the site's policy at that time."""
    numbers: Mapping[str, float]


class Release(Settings):
    """All that was told of one state."""

    state: Digest
    parts: Mapping[str, Part]


def tell_evaluation(folder: Path, plan: Plan, metrics: Mapping[str, float], least_cell: int) -> dict[str, float]:
    """The numbers of a visit as the site may tell them; what is new in them is safe on disk now.

    Args:
        folder: of the site.
        plan: of an evaluation, or of a training visit, of which only the validation of the received state counts here.
        metrics: as the worker made them.

    Raises:
        Refused: POLICY, what was told before cannot be read, or a number is of fewer patients than may be told.
    """
    assert plan.state is not None, "only a query has no state"
    path = folder / "released-evaluations" / f"{plan.state.digest}.json"
    before = _read(path, plan.state.digest)
    parts: dict[str, dict[str, float]] = {}
    told: dict[str, float] = {}
    for name, value in metrics.items():
        together = _part_of(name, plan)
        if together is None:
            told[name] = value
        else:
            parts.setdefault(together, {})[name] = value
    _check_least_cell(Part(least_cell=least_cell, numbers=told))
    new = {name: Part(least_cell=least_cell, numbers=own) for name, own in parts.items() if name not in before.parts}
    for part in new.values():
        _check_least_cell(part)
    if new:
        after = Release(state=plan.state.digest, parts={**before.parts, **new})
        write_whole(path, after.model_dump_json(indent=1), mode=0o600)
    if len(new) < len(parts):
        logger.info("task %s: what was told of this state before is told again", plan.task_id)
    for name in parts:
        told |= (new.get(name) or before.parts[name]).numbers
    return told


def _part_of(name: str, plan: Plan) -> str | None:
    """What a number is told together with; None where it is told anew each time."""
    words = name.split("/")
    if plan.kind == "train":
        if words[0] != "received":
            return None
        finding, *dataset = words[2:]
        return "/".join(["received", _RISK if finding in _RISK_PARTS else finding, *dataset])
    if name in _OF_THIS_VISIT:
        return None
    if len(words) > 1 and words[1] in _RISK_PARTS:
        return _RISK
    return words[1] if len(words) > 1 else name


def _check_least_cell(part: Part) -> None:
    """The worker leaves small cells out; whoever holds the policy looks again, as far as the numbers show it."""
    for name, value in part.numbers.items():
        if is_histogram(name) and 0 < value < part.least_cell:
            raise _too_few(name)
        if "num_positive/" in name:
            rest = part.numbers.get(name.replace("num_positive/", "num_labelled/"), 0) - value
            if min(value, rest) < part.least_cell:
                raise _too_few(name)
    difference = small_difference(part.numbers, part.least_cell)
    if difference is not None:
        raise _too_few(difference)


def _too_few(name: str) -> Refused:
    return Refused(RefusalCode.POLICY, f"{name}: fewer patients than `policy.least_cell`; nothing was told")


def _read(path: Path, state: str) -> Release:
    if not path.exists():
        return Release(state=state, parts={})
    try:
        return Release.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise Refused(
            RefusalCode.POLICY,
            "what was told of this model before cannot be read: bring `released-evaluations` back from a backup, or "
            "remove the damaged file, so that it is told anew",
        ) from error
