"""What the coordinator knows of each site right now: from its last calls, in memory, shown in the status.

    not connected → connected → ready → fetching → training → submitting → contributed → ready …
                                                    any of these → stale      no word, or no step, for too long
                                                    submitting, training → refused      its update or visit was

A site that works is never asked how long it may take: what counts is that it speaks, and that its steps go on at the
pace that it told itself.
"""

import math
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.wire import OLDEST_PROTOCOL, PROTOCOL_VERSION

SILENT_AFTER_S = 100.0
"""A visit reports each second, an idle site polls at least every 20 s. A cut of a minute is no absence, and a dead site
is noticed in under two."""
STALLED_AFTER_S = 600.0
STALLED_AFTER_STEPS = 100
"""A site whose step did not change for this long, and for the time of this many steps at its own pace, has stalled."""

Missing = Literal["", "silent", "stalled", "vetoed"]


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
    steps_per_s: float = 0.0
    num_training_exams: int = 0
    num_test_exams: int = 0
    last_seen: float = 0.0
    """Seconds since the epoch; 0: never."""
    heard_s: float = 0.0
    """``time.monotonic`` of its last sign of life, or of the coordinator's start: no clock can be set wrong."""
    moved_s: float = 0.0
    """``time.monotonic`` at which its step last changed."""
    verdict: str = ""
    """`contributed` or `refused`: how its last task of ``verdict_round`` ended."""
    verdict_round: int = -1
    certificate_until: datetime | None = None
    """End of the certificate that it last came with."""
    protocol_version: int = 0
    """0: it has not called."""
    knows_end: bool = False
    """Whether it has been told that the run is over."""


_STATE_WORDS = {
    pb.READY: "ready",
    pb.FETCHING: "fetching",
    pb.TRAINING: "training",
    pb.EVALUATING: "evaluating",
    pb.SUBMITTING: "submitting",
    pb.COUNTING: "counting",
    pb.OUT_OF_HOURS: "out of hours",
    pb.VETOED: "vetoed",
}


def _finite(value: float) -> float:
    """JSON knows no NaN: one in the status would make all of it unreadable."""
    return value if math.isfinite(value) else 0.0


class SiteBoard:
    """The last word of each site; safe to use from every thread."""

    def __init__(self, sites: Collection[str], newcomers: Callable[[], Collection[str]] = tuple) -> None:
        """``newcomers`` gives the sites that the lead has asked to join since; such a site may call from then on."""
        self._lock = threading.Lock()
        self._status: dict[str, SiteStatus] = {}
        self._round = 0
        self._newcomers = newcomers
        for site in sites:
            self.admit(site)

    def __contains__(self, site: str) -> bool:
        if site not in self._status and site in self._newcomers():
            self.admit(site)
        return site in self._status

    def is_there(self, site: str) -> bool:
        """Whether a site has called and can be counted on now."""
        return site in self._status and bool(self._status[site].last_seen) and not self.missing(site)

    def admit(self, site: str) -> None:
        """Know a site from now on; one that is known stays as it is."""
        now = time.monotonic()
        with self._lock:
            self._status.setdefault(site, SiteStatus(site, heard_s=now, moved_s=now))

    def hello(
        self, site: str, num_training_exams: int, num_test_exams: int, protocol_version: int = PROTOCOL_VERSION
    ) -> None:
        """A site has introduced itself."""
        self._change(
            site,
            state="connected",
            num_training_exams=num_training_exams,
            num_test_exams=num_test_exams,
            protocol_version=protocol_version,
            knows_end=False,
        )

    def polled(self, site: str, request: Any, task_id: str) -> None:
        """A site has said how far it is with one of its open tasks, or with none ("")."""
        before = self._status[site]
        state = _STATE_WORDS.get(request.state, "ready")
        has_moved = (state, task_id, request.epoch, request.step) != (
            before.state,
            before.task_id,
            before.epoch,
            before.step,
        )
        self._change(
            site,
            state=state,
            task_id=task_id,
            epoch=request.epoch,
            step=request.step,
            num_steps=request.num_steps,
            loss=_finite(request.loss),
            samples_per_s=_finite(request.samples_per_s),
            steps_per_s=_finite(request.steps_per_s),
            protocol_version=request.protocol_version or OLDEST_PROTOCOL,
            **({"moved_s": time.monotonic()} if has_moved else {}),
        )

    def certified(self, site: str, until: datetime) -> None:
        """A site has come with a certificate that serves until then."""
        if self._status[site].certificate_until != until:
            self._change(site, certificate_until=until)

    def heard(self, site: str) -> None:
        """A site has given a sign of life, such as a part of an upload."""
        self._change(site)

    def concluded(self, site: str, round_number: int, verdict: Literal["contributed", "refused"]) -> None:
        """A task of a site has its outcome."""
        with self._lock:
            self._status[site] = replace(self._status[site], verdict=verdict, verdict_round=round_number)

    def begin_round(self, round_number: int) -> None:
        """What a site did in earlier rounds is no longer its state."""
        with self._lock:
            self._round = round_number

    def told_end(self, site: str) -> None:
        """A site has been told that the run is over."""
        self._change(site, knows_end=True)

    def all_know_end(self) -> bool:
        """Whether every site that is still there has been told that the run is over."""
        return all(item.knows_end or not item.last_seen or item.state == "stale" for item in self.snapshot())

    def missing(self, site: str) -> Missing:
        """Why a site cannot be counted on now: it is silent, without progress at its own pace, or does not want to."""
        with self._lock:
            item = self._status[site]
        return _missing(item, time.monotonic())

    def silent_s(self, site: str) -> float:
        """Seconds since a site's last sign of life, or since the coordinator started."""
        with self._lock:
            return time.monotonic() - self._status[site].heard_s

    def _change(self, site: str, **changes: Any) -> None:
        with self._lock:
            heard: dict[str, Any] = {"last_seen": time.time(), "heard_s": time.monotonic()}
            self._status[site] = replace(self._status[site], **heard, **changes)

    def snapshot(self) -> list[SiteStatus]:
        """All sites, in the order in which they became known, with the state that is shown of each."""
        now = time.monotonic()
        with self._lock:
            return [replace(item, state=_shown(item, self._round, now)) for item in self._status.values()]


def _missing(item: SiteStatus, now: float) -> Missing:
    if now - item.heard_s > SILENT_AFTER_S:
        return "silent"
    if item.state == "vetoed":
        return "vetoed"
    has_pace = item.state == "training" and item.steps_per_s > 0
    longest_s = max(STALLED_AFTER_S, STALLED_AFTER_STEPS / item.steps_per_s) if has_pace else math.inf
    return "stalled" if now - item.moved_s > longest_s else ""


def _shown(item: SiteStatus, round_number: int, now: float) -> str:
    if item.last_seen and _missing(item, now) in ("silent", "stalled"):
        return "stale"
    if item.state == "ready" and item.verdict_round == round_number:
        return item.verdict
    return item.state
