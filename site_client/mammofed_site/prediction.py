"""How long a visit will take, as `site-client plan` has predicted it, and how long the last one took. Never leaves.

<site folder>/prediction.json    settings of the run and of the worker → a prediction, and the last visit's times
"""

import json
import logging
from pathlib import Path

from mammofed_shared.config.base import Settings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.files import write_whole
from mammofed_shared.protocol.plan import Plan
from mammofed_site.micro_batch import settings_key

logger = logging.getLogger(__name__)


class Prediction(Settings):
    """Seconds that a visit takes: once, and for each epoch, at a usual, a quick and a slow pace."""

    once_s: float
    epoch_s: float
    quick_epoch_s: float
    slow_epoch_s: float

    def visit_s(self, epochs: int) -> float:
        """Seconds of a visit."""
        return self.once_s + epochs * self.epoch_s

    def range_s(self, epochs: int) -> tuple[float, float]:
        """The same at the quick and at the slow pace."""
        return self.once_s + epochs * self.quick_epoch_s, self.once_s + epochs * self.slow_epoch_s


class Outcome(Settings):
    """What was predicted of a visit, and what it took, in seconds."""

    predicted_s: float
    took_s: float

    def __str__(self) -> str:
        off = 100 * (self.took_s / self.predicted_s - 1)
        return f"predicted {in_words(self.predicted_s)}, took {in_words(self.took_s)} ({off:+.0f} %)"


class Kept(Settings):
    """What is kept for one worker group and one run's settings."""

    prediction: Prediction
    last: Outcome | None = None


def keep_prediction(settings: SiteSettings, plan: Plan, prediction: Prediction) -> None:
    """Put a new prediction in place of the one before; the last visit's times stay."""
    last = last_outcome(settings, plan)
    _write(settings, plan, Kept(prediction=prediction, last=last))


def last_outcome(settings: SiteSettings, plan: Plan) -> Outcome | None:
    """How far off the prediction of the last visit with these settings was; None where there was none."""
    kept = _read(settings).get(_key(settings, plan))
    return kept.last if kept else None


def compare_with_prediction(settings: SiteSettings, plan: Plan, took_s: float) -> None:
    """Log how far off the prediction of a visit was, and keep both numbers; nothing, where nothing was predicted."""
    kept = _read(settings).get(_key(settings, plan))
    if kept is None:
        return
    outcome = Outcome(predicted_s=kept.prediction.visit_s(plan.epochs), took_s=took_s)
    logger.info("task %s: %s", plan.task_id, outcome)
    try:
        _write(settings, plan, kept.model_copy(update={"last": outcome}))
    except OSError as error:  # such as a full disk; the visit's result is safe and must not suffer
        logger.warning("prediction.json was not written: %s", error.strerror)


def in_words(seconds: float) -> str:
    """A duration in the unit in which it is best read."""
    for unit, length_s in (("h", 3600.0), ("min", 60.0)):
        if seconds >= length_s:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{seconds:.2g} s"


def _path(settings: SiteSettings) -> Path:
    return settings.folder / "prediction.json"


def _key(settings: SiteSettings, plan: Plan) -> str:
    # With the rest of what a step's time hangs on: a trial of other settings says nothing of the YAML's.
    worker = settings.worker
    rest = [worker.micro_batch, worker.compile, worker.threads, worker.loaders]
    return f"{settings_key(settings, plan)}/{'/'.join(map(str, rest))}"


def _read(settings: SiteSettings) -> dict[str, Kept]:
    try:
        found = json.loads(_path(settings).read_text(encoding="utf-8"))
        return {key: Kept.model_validate(value) for key, value in found.items()}
    except (OSError, ValueError, AttributeError):  # none, or an older version of this software's
        return {}


def _write(settings: SiteSettings, plan: Plan, kept: Kept) -> None:
    all_kept = _read(settings) | {_key(settings, plan): kept}
    write_whole(_path(settings), json.dumps({key: item.model_dump() for key, item in all_kept.items()}, indent=1))
