"""Words for what ends soon, said once a day from 30 days before."""

import logging
from datetime import UTC, datetime, timedelta

WARN_WITHIN = timedelta(days=30)
SAY_AGAIN_AFTER = timedelta(days=1)


def days_left(until: datetime, now: datetime | None = None) -> float:
    """Days until a moment; negative once it is over."""
    return (until - (now or datetime.now(UTC))) / timedelta(days=1)


def expiry_warning(what: str, until: datetime, remedy: str, now: datetime | None = None) -> str | None:
    """One sentence on something that ends within 30 days or has ended, and what to do; None where there is time."""
    left = days_left(until, now)
    if left > WARN_WITHIN / timedelta(days=1):
        return None
    end = f"{until:%Y-%m-%d %H:%M} UTC"
    when = f"has ended {end}" if left <= 0 else f"ends in {left:.0f} day(s), {end}" if left >= 1 else f"ends {end}"
    return f"{what} {when}: {remedy}"


class Reminder:
    """Says a warning once a day; what it warns of is its key, so that words may change."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: dict[str, datetime] = {}

    def remind(self, what: str, until: datetime, remedy: str, now: datetime | None = None) -> None:
        """Warn of ``what`` if it ends within 30 days and the last warning is a day old."""
        moment = now or datetime.now(UTC)
        words = expiry_warning(what, until, remedy, moment)
        if words is None:
            self._said.pop(what, None)
            return
        if what not in self._said or moment - self._said[what] >= SAY_AGAIN_AFTER:
            self._said[what] = moment
            self._logger.warning("%s", words)
