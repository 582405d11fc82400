"""Hours of the week at which a hospital lets its machine work, written as ``mon-fri 20:00-06:00``."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY, _TIME = rf"(?:{'|'.join(DAYS)})", r"(?:[01]\d|2[0-4]):[0-5]\d"
_WINDOW = re.compile(rf"({_DAY}(?:-{_DAY})?(?:,{_DAY}(?:-{_DAY})?)*) ({_TIME})-({_TIME})")
_DAY_MIN, _WEEK_MIN = 24 * 60, 7 * 24 * 60


@dataclass(frozen=True, slots=True)
class Window:
    """The same hours on some days; ``end_min`` is above 24 hours where they last into the next day."""

    days: frozenset[int]
    """0: Monday."""
    start_min: int
    end_min: int


def read_window(text: str) -> Window:
    """The window that a text such as ``mon-fri,sun 20:00-06:00`` means; an end up to the start is the next day's.

    Raises:
        ValueError: it is not of that form.
    """
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise ValueError("hours: expected days and times such as 'mon-fri 20:00-06:00' or 'sat,sun 00:00-24:00'")
    start, end = _minutes(found[2]), _minutes(found[3])
    if start >= _DAY_MIN or end > _DAY_MIN:
        raise ValueError("hours: a day begins at 00:00 and ends at 24:00")
    days = frozenset(day for part in found[1].split(",") for day in _days(part))
    return Window(days, start, end if end > start else end + _DAY_MIN)


def _minutes(time: str) -> int:
    hours, minutes = time.split(":")
    return 60 * int(hours) + int(minutes)


def _days(part: str) -> list[int]:
    first, _, last = part.partition("-")
    begin, end = DAYS.index(first), DAYS.index(last or first)
    return [day % 7 for day in range(begin, end + 1 if end >= begin else end + 8)]


def is_within(windows: Iterable[Window], local: datetime) -> bool:
    """Whether a moment, by the clock on the wall, is in one of the windows."""
    moment = local.weekday() * _DAY_MIN + local.hour * 60 + local.minute
    return any(
        start <= at < start + window.end_min - window.start_min
        for window in windows
        for day in window.days
        for start in (day * _DAY_MIN + window.start_min,)
        for at in (moment, moment + _WEEK_MIN)  # a window of Sunday night lasts into Monday
    )
