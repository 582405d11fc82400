"""Whether this site holds still right now: the hospital has vetoed, or it is outside the hours of its policy."""

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from pathlib import Path
from zoneinfo import ZoneInfo

from mammofed_shared.config.hours import is_within, read_window
from mammofed_shared.config.policy import PolicySettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import ConfigurationError, RefusalCode, Refused
from mammofed_site.policy_file import InForce, read_policy
from mammofed_site.veto import is_vetoed

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.3
"""A veto is noticed within a second, in every state."""


class Hold(Enum):
    """Why nothing runs here now; each with the code that may cross the wire."""

    VETOED = RefusalCode.VETOED
    OUT_OF_HOURS = RefusalCode.OUT_OF_HOURS


def is_open(policy: PolicySettings, now: datetime | None = None) -> bool:
    """Whether the policy's hours let anything run at a moment, which is now unless said otherwise."""
    if policy.hours is None:
        return True
    zone = ZoneInfo(policy.time_zone) if policy.time_zone else None
    local = datetime.now(zone) if now is None else now.astimezone(zone)
    return is_within([read_window(text) for text in policy.hours], local)


def refuse_while_held(in_force: InForce) -> None:
    """Return if the site may work now.

    Raises:
        Refused: VETOED or OUT_OF_HOURS.
    """
    if is_vetoed(in_force.settings.folder):
        raise Refused(RefusalCode.VETOED, "this hospital has stopped taking part; `site-client veto --lift` ends it")
    if not is_open(in_force.policy):
        raise Refused(RefusalCode.OUT_OF_HOURS, "the policy's hours let nothing run now")


class HoldWatch:
    """Looks several times a second whether the site holds still, and says so when that changes.

    ``now`` is what was found last; ``changed`` is set with each change, for a thread that waits. A policy that cannot
    be read is no hold: plans that come are refused then, and the refusal says why.
    """

    def __init__(self, settings: SiteSettings, on_hold: Callable[[Hold], None]) -> None:
        self._settings = settings
        self._on_hold = on_hold
        self._policy: PolicySettings | None = settings.policy
        self._read_at: tuple[int, ...] = ()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="hold")
        self.changed = threading.Event()
        self.now = self._look()

    @property
    def policy(self) -> PolicySettings | None:
        """The rules as they were read last; None while they cannot be read."""
        return self._policy

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def wait_for_change(self, timeout_s: float) -> None:
        """Return when the hold has changed, or the time is over."""
        self.changed.wait(timeout_s)
        self.changed.clear()

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            found = self._look()
            if found is self.now:
                continue
            self.now = found
            if found is None:
                logger.info("site %s takes part again", self._settings.site)
            else:
                logger.warning("site %s holds still: %s", self._settings.site, found.name)
                self._on_hold(found)
            self.changed.set()

    def _look(self) -> Hold | None:
        path = self._settings.policy.file
        if path is not None:
            self._read_again(path)
        if is_vetoed(self._settings.folder):
            return Hold.VETOED
        return Hold.OUT_OF_HOURS if self._policy is not None and not is_open(self._policy) else None

    def _read_again(self, path: Path) -> None:
        try:
            written = _identity(path)
            if written != self._read_at:
                self._policy, _ = read_policy(path)
                self._read_at = written
        except (OSError, ConfigurationError):
            self._policy, self._read_at = None, ()


def _identity(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
