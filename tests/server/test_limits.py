"""One site's share of the coordinator, and a log that nobody can fill."""

import logging
import os
import subprocess
import sys
import threading
from typing import Any, cast

import grpc
import pytest

from mammofed_server.limits import (
    CALL_LIMITS,
    CALLS_PER_SITE,
    MAX_PART_BYTES,
    STALE_AFTER_S,
    ActiveCall,
    Limiter,
    TooMuch,
)
from mammofed_server.quiet_log import LONGEST_TEXT, MOST_KINDS, QuietLog, quoted
from mammofed_shared.protocol.tls import Peer
from mammofed_shared.protocol.wire import CALLS, CHUNK_BYTES


class _Context:
    """What of grpc's context the limiter uses."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


def _call(site: str, name: str) -> ActiveCall:
    return ActiveCall(site, name, cast(Peer, None), cast(grpc.ServicerContext, _Context()))


def test_every_call_has_its_limits_and_a_chunk_fits() -> None:
    assert set(CALL_LIMITS) == set(CALLS)
    assert MAX_PART_BYTES > CHUNK_BYTES + 64


def test_the_coordinator_takes_as_many_open_files_as_it_may() -> None:
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 3000))\n"
        "from mammofed_server.limits import raise_file_limit\n"
        "print(raise_file_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0], raise_file_limit())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3000", "3000", "3000"]


def test_a_burst_is_served_then_a_rate() -> None:
    now = [0.0]
    limiter, limit = Limiter(lambda: now[0]), CALL_LIMITS["Fetch"]
    for _ in range(limit.burst):
        limiter.take("mayo", "Fetch")
    with pytest.raises(TooMuch, match="site mayo calls Fetch more often than 5 times a second"):
        limiter.take("mayo", "Fetch")
    limiter.take("mayo", "Poll")
    limiter.take("upmc", "Fetch")
    now[0] += 2 / limit.per_s
    for _ in range(2):
        limiter.take("mayo", "Fetch")
    with pytest.raises(TooMuch):
        limiter.take("mayo", "Fetch")
    now[0] += 1e6
    for _ in range(limit.burst):
        limiter.take("mayo", "Fetch")
    with pytest.raises(TooMuch):
        limiter.take("mayo", "Fetch")


def test_a_site_has_no_more_calls_at_once_than_its_places() -> None:
    limiter = Limiter()
    held: list[Any] = [limiter.entered(_call("mayo", "Poll")) for _ in range(CALLS_PER_SITE)]
    for place in held:
        place.__enter__()
    with pytest.raises(TooMuch, match="calls under way already"), limiter.entered(_call("mayo", "Poll")):
        pass
    with limiter.entered(_call("upmc", "Poll")):
        assert len(limiter.active()) == CALLS_PER_SITE + 1
    held.pop().__exit__(None, None, None)
    with limiter.entered(_call("mayo", "Poll")):
        pass
    for place in held:
        place.__exit__(None, None, None)
    assert limiter.active() == []


def test_a_transfer_that_goes_on_is_not_pushed_out_by_a_second_one() -> None:
    limiter, first = Limiter(), _call("mayo", "Submit")
    with limiter.entered(first), first.waiting():
        with pytest.raises(TooMuch, match="has a Submit under way"), limiter.entered(_call("mayo", "Submit")):
            pass
        with limiter.entered(_call("mayo", "Fetch")), limiter.entered(_call("upmc", "Submit")):
            assert not cast(_Context, first.context).cancelled.is_set()


def test_a_transfer_whose_connection_was_cut_gives_way() -> None:
    limiter, first = Limiter(), _call("mayo", "Submit")
    inside, done = threading.Event(), threading.Event()

    def stale() -> None:
        with limiter.entered(first), first.waiting():
            inside.set()
            done.wait(10)
            cast(_Context, first.context).cancelled.wait(10)

    thread = threading.Thread(target=stale)
    thread.start()
    inside.wait(10)
    assert first.silent_since_s is not None
    first.silent_since_s -= STALE_AFTER_S + 1
    done.set()
    with limiter.entered(_call("mayo", "Submit")):
        assert first.cut
    thread.join(10)
    assert limiter.active() == []


def test_a_silent_call_is_cut_once_and_one_that_works_is_not() -> None:
    limiter, silent, busy = Limiter(), _call("mayo", "Submit"), _call("upmc", "Submit")
    with limiter.entered(silent), limiter.entered(busy), silent.waiting():
        assert limiter.cut_silent() == []
        assert silent.silent_since_s is not None
        silent.silent_since_s -= CALL_LIMITS["Submit"].silence_s + 1
        assert limiter.cut_silent() == [silent]
        assert cast(_Context, silent.context).cancelled.is_set()
        assert limiter.cut_silent() == []
        assert not cast(_Context, busy.context).cancelled.is_set()


def test_a_log_says_each_kind_once_a_minute_with_a_count(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    log = QuietLog(logging.getLogger("test"), lambda: now[0])
    for _ in range(1000):
        log.warning(("mayo", "Poll"), "site %s calls too often", "mayo")
    log.warning(("upmc", "Poll"), "site %s calls too often", "upmc")
    assert len(caplog.records) == 2
    now[0] = 61
    log.warning(("mayo", "Poll"), "site %s calls too often", "mayo")
    assert caplog.records[-1].getMessage() == "site mayo calls too often (999 more like it since the last such line)"


def test_a_log_tells_no_more_kinds_apart_than_it_has_room_for(caplog: pytest.LogCaptureFixture) -> None:
    log = QuietLog(logging.getLogger("test"), lambda: 0.0)
    for number in range(3 * MOST_KINDS):
        log.warning((str(number),), "kind %d", number)
    assert len(caplog.records) == MOST_KINDS + 1


def test_what_a_peer_said_stands_in_one_short_line_of_ascii(caplog: pytest.LogCaptureFixture) -> None:
    bomb = "\n2026-11-24 INFO forged\x1b[31m \u202e" + "x" * 10_000_000
    log = QuietLog(logging.getLogger("test"))
    log.warning(("a",), "site: %s", bomb)
    said = caplog.records[0].getMessage()
    assert said.isprintable() and said.isascii() and len(said) < LONGEST_TEXT + 20
    assert quoted("mayo") == "mayo" and len(quoted("y" * 50, 40)) == 43
