"""The site's own record of what came in and what left: one JSON line an event, appended and safe on disk first.

Each line has the SHA-256 of the line before, so that none can be changed or taken out unseen (`site-client ledger`).
"""

import fcntl
import hashlib
import json
import os
import time
from pathlib import Path

AUDIT_FILE = "audit.jsonl"


class Audit:
    """Appends to ``audit.jsonl``. Holds digests, sizes, numbers, codes and who decided; never content.

    Commands and a running client write to it at the same time, one after the other.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / AUDIT_FILE

    def write(self, event: str, **facts: str | int | float | bool | list[str]) -> None:
        """Record an event; returns only when it is safe on disk."""
        when = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            last = _last_line(descriptor)
            previous = {"previous": hashlib.sha256(last.removesuffix(b"\n")).hexdigest()} if last else {}
            torn = b"\n" if last and not last.endswith(b"\n") else b""  # cut by a kill: it stays, as a line of its own
            rest = torn + json.dumps({**when, **facts, **previous}).encode() + b"\n"
            while rest:  # a full disk may take a part, and says so at the next one
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def head(self) -> str | None:
        """SHA-256 of the last line; None before the first."""
        if not self._path.exists():
            return None
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            last = _last_line(descriptor)
        finally:
            os.close(descriptor)
        return hashlib.sha256(last.removesuffix(b"\n")).hexdigest() if last else None


def _last_line(descriptor: int) -> bytes:
    """The last line of a file, with its end if it has one; empty of an empty file."""
    end = os.fstat(descriptor).st_size
    held = b""
    while end > 0 and held.rstrip(b"\n").rfind(b"\n") < 0:
        begin = max(0, end - 2**14)
        held = os.pread(descriptor, end - begin, begin) + held
        end = begin
    whole = held[:-1] if held.endswith(b"\n") else held
    return held[whole.rfind(b"\n") + 1 :]
