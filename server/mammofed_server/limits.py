"""How much of the coordinator one site may use at a time: bytes of a message, calls a second, calls at once, silence.

A site that keeps to the protocol stays far below all of it. What is above is answered RESOURCE_EXHAUSTED, which a
site waits on, or cut, which it resumes from: a limit ends nothing for good.
"""

import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

import grpc

from mammofed_shared.protocol.tls import Peer
from mammofed_shared.protocol.wire import MAX_MESSAGE_BYTES

MAX_PART_BYTES = 512 * 2**10
"""Of an upload's parts after its header; ours have half of it."""
MAX_METADATA_BYTES = 4 * 2**10
"""Headers of a call; ours have 300 bytes. Beyond it they may be refused, beyond twice as much they are."""
CALLS_PER_SITE = 4
"""A heartbeat, a transfer, and what a broken connection has left of each."""
ROOM_TO_JOIN = 16
"""Sites that may join while a run goes on, and have threads too."""
SPARE_THREADS = 4
"""They say no while every site's calls are all in use."""
MOST_CALLS = 1024
"""Under way and waiting for a thread, of all sites: a bound of memory."""
STREAMS_PER_CONNECTION = 16
HANDSHAKE_S = 20
"""A connection that has not shown its certificate by then is closed."""
MOST_FILES = 65_536
STALE_AFTER_S = 5.0
"""A transfer that has been silent this long gives way to a new one of the same site: its connection was cut."""


@dataclass(frozen=True, slots=True)
class CallLimit:
    """Of one of the calls, for each site."""

    message_bytes: int
    """Of its request, or of the first one."""
    burst: int
    per_s: float
    silence_s: float
    """How long the coordinator waits for the site's next message, or for it to take the next chunk."""


CALL_LIMITS = MappingProxyType(
    {
        "Hello": CallLimit(2 * 2**10, 20, 1.0, 30.0),
        "Poll": CallLimit(2 * 2**10, 60, 10.0, 30.0),
        "Fetch": CallLimit(1 * 2**10, 30, 5.0, 60.0),
        "Offset": CallLimit(1 * 2**10, 30, 5.0, 30.0),
        "Submit": CallLimit(MAX_MESSAGE_BYTES, 30, 5.0, 60.0),
        "Fail": CallLimit(1 * 2**10, 30, 5.0, 30.0),
        "Renew": CallLimit(8 * 2**10, 5, 1 / 600, 30.0),
    }
)
TRANSFERS = frozenset({"Fetch", "Submit"})


def raise_file_limit() -> int:
    """Let this process hold as many open files as the system allows it, and give that number.

    Each connection is one, also that of a stranger, for ``HANDSHAKE_S``; the usual limit of 1024 would soon be reached.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


class TooMuch(Exception):
    """A site asks for more than its share; the message is for its log."""


@dataclass(eq=False)
class ActiveCall:
    """One call that is under way."""

    site: str
    name: str
    peer: Peer
    context: grpc.ServicerContext
    silent_since_s: float | None = None
    """Since when the coordinator waits for the site; None while it is the coordinator's turn."""
    cut: str = ""
    """Why it was cut, once it was."""

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around each wait for the site."""
        self.silent_since_s = time.monotonic()
        try:
            yield
        finally:
            self.silent_since_s = None


@dataclass
class _Bucket:
    tokens: float
    at_s: float


@dataclass
class Limiter:
    """Counts what each site does; safe to use from every thread. Only sites of the run come here."""

    clock: Callable[[], float] = time.monotonic
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _buckets: dict[tuple[str, str], _Bucket] = field(default_factory=dict)
    _active: dict[str, list[ActiveCall]] = field(default_factory=dict)

    def take(self, site: str, name: str) -> None:
        """Count a call against the site's rate (a token bucket for each call).

        Raises:
            TooMuch: it calls faster than it may.
        """
        limit, now = CALL_LIMITS[name], self.clock()
        with self._changed:
            bucket = self._buckets.setdefault((site, name), _Bucket(limit.burst, now))
            bucket.tokens = min(limit.burst, bucket.tokens + (now - bucket.at_s) * limit.per_s)
            bucket.at_s = now
            if bucket.tokens < 1:
                raise TooMuch(f"site {site} calls {name} more often than {limit.per_s:g} times a second")
            bucket.tokens -= 1

    @contextmanager
    def entered(self, call: ActiveCall) -> Iterator[None]:
        """Hold one of the site's places while the call lasts.

        Raises:
            TooMuch: all are taken, or another transfer of the same kind is going on.
        """
        with self._changed:
            self._make_way(call)
            mine = self._active.setdefault(call.site, [])
            if len(mine) >= CALLS_PER_SITE:
                raise TooMuch(f"site {call.site} has {CALLS_PER_SITE} calls under way already")
            mine.append(call)
        try:
            yield
        finally:
            with self._changed:
                mine.remove(call)
                self._changed.notify_all()

    def _make_way(self, call: ActiveCall) -> None:
        """A site whose connection was cut comes back before the coordinator has noticed: end what was left."""
        if call.name not in TRANSFERS:
            return

        def others() -> list[ActiveCall]:
            return [item for item in self._active.get(call.site, ()) if item.name == call.name]

        now = time.monotonic()
        for item in others():
            if item.silent_since_s is None or now - item.silent_since_s < STALE_AFTER_S:
                raise TooMuch(f"site {call.site} has a {call.name} under way already")
            item.cut = "a new one came"
            item.context.cancel()
        if not self._changed.wait_for(lambda: not others(), STALE_AFTER_S):
            raise TooMuch(f"site {call.site} has a {call.name} under way already")

    def active(self) -> list[ActiveCall]:
        """All calls that are under way."""
        with self._changed:
            return [call for calls in self._active.values() for call in calls]

    def cut_silent(self) -> list[ActiveCall]:
        """End every call whose site has been silent for too long; gives those that were cut now."""
        now = time.monotonic()
        cut = []
        for call in self.active():
            since = call.silent_since_s
            if not call.cut and since is not None and now - since > CALL_LIMITS[call.name].silence_s:
                call.cut = "silence"
                call.context.cancel()
                cut.append(call)
        return cut
