"""A TCP proxy on 127.0.0.1 that counts what crosses, and cuts the connection once so many bytes have crossed."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class CuttingProxy:
    """Passes bytes through; TLS is the two ends' own."""

    def __init__(self) -> None:
        self.target = 0
        """Port of the coordinator on 127.0.0.1."""
        self.sent = 0
        """Bytes that went up, from the site to the coordinator."""
        self.received = 0
        """Bytes that went down."""
        self.cut_after_sent: int | None = None
        self.cut_after_received: int | None = None
        self.is_cut = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def forget(self) -> None:
        """Count from 0 again, and let everything through."""
        self.sent = self.received = 0
        self.cut_after_sent = self.cut_after_received = None
        self.is_cut.clear()

    def close(self) -> None:
        """Accept no connection any more."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                site, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self.is_cut.is_set():
                    raise ConnectionRefusedError
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                site.close()
                continue
            for source, target, is_up in ((site, server, True), (server, site, False)):
                threading.Thread(target=self._pass_on, args=(source, target, is_up), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_up: bool) -> None:
        with contextlib.suppress(OSError):
            while not self.is_cut.is_set() and (data := source.recv(2**14)):
                target.sendall(data)
                self._count(len(data), is_up)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _count(self, length: int, is_up: bool) -> None:
        if is_up:
            self.sent += length
        else:
            self.received += length
        limits = ((self.sent, self.cut_after_sent), (self.received, self.cut_after_received))
        if any(limit is not None and count >= limit for count, limit in limits):
            self.is_cut.set()


@contextmanager
def cutting_proxy() -> Iterator[CuttingProxy]:
    """A proxy; ``target`` says which port is behind it."""
    proxy = CuttingProxy()
    try:
        yield proxy
    finally:
        proxy.is_cut.set()
        proxy.close()
