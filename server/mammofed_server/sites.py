"""What the coordinator knows of each site right now: from its last calls, in memory, shown in the status."""

import math
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from mammofed_shared.protocol import federation_pb2 as pb

ABSENT_AFTER_S = 60
"""A site polls at least every 20 s; after three missed polls it is shown as away."""


@dataclass(frozen=True, slots=True)
class SiteStatus:
    """One site's line in the status table."""

    site: str
    state: str = "not connected"
    task_id: str = ""
    epoch: int = 0
    step: int = 0
    num_steps: int = 0
    loss: float = 0.0
    samples_per_s: float = 0.0
    num_training_exams: int = 0
    num_test_exams: int = 0
    last_seen: float = 0.0
    """Seconds since the epoch; 0: never."""
    knows_end: bool = False
    """Whether it has been told that the run is over."""


_STATE_WORDS = {
    pb.READY: "ready",
    pb.FETCHING: "fetching",
    pb.TRAINING: "training",
    pb.EVALUATING: "evaluating",
    pb.SUBMITTING: "submitting",
    pb.COUNTING: "counting",
}


def _finite(value: float) -> float:
    """JSON knows no NaN: one in the status would make all of it unreadable."""
    return value if math.isfinite(value) else 0.0


class SiteBoard:
    """The last word of each site; safe to use from every thread."""

    def __init__(self, sites: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._status = {site: SiteStatus(site) for site in sites}

    def __contains__(self, site: str) -> bool:
        return site in self._status

    def hello(self, site: str, num_training_exams: int, num_test_exams: int) -> None:
        """A site has introduced itself."""
        self._change(
            site,
            state="ready",
            num_training_exams=num_training_exams,
            num_test_exams=num_test_exams,
            knows_end=False,
        )

    def polled(self, site: str, request: Any, task_id: str) -> None:
        """A site has said how far it is with one of its open tasks, or with none ("")."""
        self._change(
            site,
            state=_STATE_WORDS.get(request.state, "ready"),
            task_id=task_id,
            epoch=request.epoch,
            step=request.step,
            num_steps=request.num_steps,
            loss=_finite(request.loss),
            samples_per_s=_finite(request.samples_per_s),
        )

    def told_end(self, site: str) -> None:
        """A site has been told that the run is over."""
        self._change(site, knows_end=True)

    def all_know_end(self) -> bool:
        """Whether every site that is still there has been told that the run is over."""
        now = time.time()
        return all(item.knows_end or now - item.last_seen > ABSENT_AFTER_S for item in self.snapshot())

    def _change(self, site: str, **changes: Any) -> None:
        with self._lock:
            self._status[site] = replace(self._status[site], last_seen=time.time(), **changes)

    def snapshot(self) -> list[SiteStatus]:
        """All sites, in the run's order, with ``away`` for those that have gone silent."""
        now = time.time()
        with self._lock:
            items = list(self._status.values())
        return [
            replace(item, state="away") if item.last_seen and now - item.last_seen > ABSENT_AFTER_S else item
            for item in items
        ]
