"""Warnings about what a peer does: each kind once a minute with a count, so that no peer can fill the log."""

import logging
import threading
import time
from collections.abc import Callable

SAY_AGAIN_AFTER_S = 60.0
MOST_KINDS = 500
"""Kinds of warning that are told apart; what is beyond shares one."""
LONGEST_TEXT = 200
_OTHERS = ("others",)


def quoted(text: object, longest: int = LONGEST_TEXT) -> str:
    """What a peer said, for a log or an error: ASCII in one line, cut at ``longest``."""
    raw = str(text)
    safe = ascii(raw[: longest + 1])[1:-1]
    return safe if len(safe) <= longest else f"{safe[:longest]}..."


class QuietLog:
    """Says the first warning of a kind at once, and those that follow as a number, once a minute."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[tuple[str, ...], tuple[float, int]] = {}

    def warning(self, kind: tuple[str, ...], message: str, *arguments: object, exc_info: bool = False) -> None:
        """Say it, unless the same kind was said within the last minute; strings among the arguments are quoted."""
        now = self._clock()
        with self._lock:
            key = kind if kind in self._said or len(self._said) < MOST_KINDS else _OTHERS
            last, kept_back = self._said.get(key, (-SAY_AGAIN_AFTER_S, 0))
            if now - last < SAY_AGAIN_AFTER_S:
                self._said[key] = (last, kept_back + 1)
                return
            self._said[key] = (now, 0)
        safe = [quoted(item) if isinstance(item, str | Exception) else item for item in arguments]
        more = f" ({kept_back} more like it since the last such line)" if kept_back else ""
        self._logger.warning(message + more, *safe, exc_info=exc_info)
