"""A worker that dies is no reason to stop a federation: the visit goes on, from its checkpoint if it has one. Nor is a
result that a failing disk has damaged before it was sent: the visit is done again, to the same bits."""

import json
import logging
from pathlib import Path

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.data.feature_store import kept_bytes
from mammofed_shared.errors import PayloadError, RefusalCode, VisitFailed
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.protocol.plan import Plan
from mammofed_site.visit import CACHES_FOLDER, PROGRESS_FILES, Monitor, forget_result, run_visit, visit_folder

logger = logging.getLogger(__name__)

MOST_DEATHS = 3
"""So often in a row, with nothing new in the visit's checkpoint, a worker group may die; then the visit has failed."""


def run_visit_again(settings: SiteSettings, plan: Plan, state: Path | None, monitor: Monitor) -> Path:
    """Do a visit as ``run_visit`` does, and again when its worker group died, for instance for lack of memory.

    A group that got further than the one before is never given up: a visit of days on a machine that restarts its
    workers each hour comes to its end, to the same bits.

    Raises:
        VisitFailed, VisitCancelled: as ``run_visit``; WORKER_DIED after ``MOST_DEATHS``.
    """
    _forget_damaged(settings, plan)
    num_deaths, got_to, most_kept = 0, _got_to(settings, plan), _kept_features(settings)
    while True:
        try:
            return run_visit(settings, plan, state, monitor)
        except VisitFailed as error:
            if error.code is not RefusalCode.WORKER_DIED:
                raise
            before, got_to = got_to, _got_to(settings, plan)
            # More than ever: a disk that damages what it keeps shall not be tried for ever.
            is_further = got_to != before or _kept_features(settings) > most_kept
            most_kept = max(most_kept, _kept_features(settings))
            num_deaths = 1 if is_further else num_deaths + 1
            if num_deaths == MOST_DEATHS:
                raise
            logger.warning("task %s: %s; the visit goes on with new workers", plan.task_id, error)


def _forget_damaged(settings: SiteSettings, plan: Plan) -> None:
    result = visit_folder(settings, plan.task_id) / "result"
    damaged = [path.name for path in (result / "update.safetensors", result / "metrics.json") if _is_damaged(path)]
    if damaged:
        logger.warning("task %s was done before, but %s is damaged: it is done again", plan.task_id, damaged[0])
        forget_result(settings, plan.task_id)


def _is_damaged(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        else:
            Payload(path).close()
    except (ValueError, PayloadError):
        return True
    return False


def _got_to(settings: SiteSettings, plan: Plan) -> int:
    """Changes whenever the visit has written a checkpoint."""
    checkpoint = visit_folder(settings, plan.task_id) / PROGRESS_FILES[0]
    return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0


def _kept_features(settings: SiteSettings) -> int:
    """Bytes of features that this site has computed and kept; they grow before a visit's first step."""
    return sum(kept_bytes(settings.folder / CACHES_FOLDER).values())
