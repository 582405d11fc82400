"""A bad line between a site and the coordinator: TCP through 127.0.0.1, with troubles at chosen bytes.

TLS passes through as it is. Bytes are counted over all connections, `up` from the site, `down` to it; so where a
trouble comes does not hang on the clock. What it does:

    reset       both sides get a reset (SO_LINGER 0)
    corrupt     one bit of a byte turns; TLS will notice
    stall       nothing passes for some seconds, then all of it does
    half-open   from now on this connection swallows everything and says nothing, for good
    cut         for some seconds all connections swallow, and new ones get no answer
"""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

BLOCK_BYTES = 16 * 2**10
Direction = Literal["up", "down"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens when so many bytes have passed."""

    does: Literal["reset", "corrupt", "stall", "half-open", "cut"]
    direction: Direction
    at: int
    """Bytes; and again after as many more, ``times`` in all."""
    times: int = 1
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """A line of so many bits a second each way (0: as fast as it goes), and its troubles."""

    bits_per_s: int = 0
    troubles: tuple[Trouble, ...] = ()


class Proxy:
    """Listens on a port of its own and connects each caller with ``target``."""

    def __init__(self, line: Line, target: tuple[str, int]) -> None:
        self._line = line
        self._target = target
        self._lock = threading.Lock()
        self._passed: dict[Direction, int] = {"up": 0, "down": 0}
        self._due = [[trouble, trouble.at, trouble.times] for trouble in line.troubles]
        self._open: set[socket.socket] = set()
        self._cut_until_s = 0.0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True, name="proxy").start()

    def num_left(self) -> int:
        """Troubles that have not come yet."""
        with self._lock:
            return sum(left for _, _, left in self._due)

    def close(self) -> None:
        """Listen no more, and cut every connection."""
        self._listener.close()
        with self._lock:
            for side in self._open:
                _close(side)

    def _accept(self) -> None:
        while True:
            try:
                site, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._connect, args=(site,), daemon=True, name="proxy-connection").start()

    def _connect(self, site: socket.socket) -> None:
        if (rest_s := self._cut_until_s - time.monotonic()) > 0:
            time.sleep(rest_s)
            _close(site)
            return
        try:
            coordinator = socket.create_connection(self._target)
        except OSError:
            _reset(site)  # as a port on which nothing listens
            return
        connection = _Connection(self, site, coordinator)
        with self._lock:
            self._open |= {site, coordinator}
        threading.Thread(target=connection.pump, args=("down",), daemon=True, name="proxy-down").start()
        connection.pump("up")

    def take_troubles(self, direction: Direction, num_bytes: int) -> list[Trouble]:
        """Count bytes that came in, and give the troubles that are due with them."""
        with self._lock:
            self._passed[direction] += num_bytes
            due = []
            for item in self._due:
                trouble, at, left = item
                if left and trouble.direction == direction and self._passed[direction] >= at:
                    item[1:] = [at + trouble.at, left - 1]
                    due.append(trouble)
            return due

    def cut(self, seconds: float) -> None:
        """Nothing passes any more for so long; what is open now is lost."""
        self._cut_until_s = time.monotonic() + seconds

    @property
    def is_cut(self) -> bool:
        """Whether it is so now."""
        return time.monotonic() < self._cut_until_s

    @property
    def seconds_per_byte(self) -> float:
        """0: no limit."""
        return 8 / self._line.bits_per_s if self._line.bits_per_s else 0.0


class _Connection:
    """One caller, and its way to the coordinator."""

    def __init__(self, proxy: Proxy, site: socket.socket, coordinator: socket.socket) -> None:
        self._proxy = proxy
        self._sides = {"up": (site, coordinator), "down": (coordinator, site)}
        self._is_lost = False
        self._is_reset = False
        self._may_pass = threading.Event()
        self._may_pass.set()

    def pump(self, direction: Direction) -> None:
        """Pass on what comes, until one side ends it."""
        source, sink = self._sides[direction]
        with contextlib.suppress(OSError):
            while data := source.recv(BLOCK_BYTES):
                for trouble in self._proxy.take_troubles(direction, len(data)):
                    data = self._suffer(trouble, data)
                self._may_pass.wait()
                self._is_lost |= self._proxy.is_cut
                if self._is_lost:
                    continue
                time.sleep(len(data) * self._proxy.seconds_per_byte)
                sink.sendall(data)
        if not self._is_lost and not self._is_reset:
            _close(source)
            _close(sink)

    def _suffer(self, trouble: Trouble, data: bytes) -> bytes:
        if trouble.does == "reset":
            self._is_reset = True
            for side in self._sides["up"]:
                _reset(side)
        elif trouble.does == "corrupt":
            turned = bytearray(data)
            turned[len(data) // 2] ^= 1
            return bytes(turned)
        elif trouble.does == "stall":
            self._may_pass.clear()
            time.sleep(trouble.seconds)
            self._may_pass.set()
        elif trouble.does == "half-open":
            self._is_lost = True
        else:
            self._proxy.cut(trouble.seconds)
        return data


def _reset(side: socket.socket) -> None:
    with contextlib.suppress(OSError):
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        side.shutdown(socket.SHUT_RD)  # a thread that reads it would keep it open; this says nothing to the other side
    side.close()


def _close(side: socket.socket) -> None:
    with contextlib.suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)
    side.close()


@contextlib.contextmanager
def proxy(line: Line, target: tuple[str, int]) -> Iterator[Proxy]:
    """A line to ``target`` for as long as the context is open."""
    made = Proxy(line, target)
    try:
        yield made
    finally:
        made.close()
