"""The site's own record of what came in and what left: one JSON line an event, appended and safe on disk first."""

import fcntl
import json
import os
import time
from pathlib import Path


class Audit:
    """Appends to ``audit.jsonl``. Holds digests, sizes, numbers, codes and who decided; never content.

    Commands and a running client write to it at the same time, one after the other.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "audit.jsonl"

    def write(self, event: str, **facts: str | int | float | bool | list[str]) -> None:
        """Record an event; returns only when it is safe on disk."""
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, **facts})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, line.encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
