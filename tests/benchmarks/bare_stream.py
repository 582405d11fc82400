"""The yardstick: the same bytes over a bare grpcio stream, same mutual TLS, hashed and fsynced where they arrive.

No mailbox, no plan, no protobuf, no check, no verdict, and no way to go on after a cut.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import mammofed_shared  # noqa: F401  (tls13 must come before the first import of grpc)

# isort: split
import grpc

from identities import Consortium
from mammofed_shared.protocol.tls import channel_credentials, server_credentials
from mammofed_shared.protocol.wire import CHUNK_BYTES, MAX_MESSAGE_BYTES

_SERVICE = "benchmark.Bare"
_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]


def serve(consortium: Consortium, state: Path, received: Path) -> tuple[grpc.Server, int]:
    """Give ``state`` to whoever asks, and take bytes into ``received``; gives the server and its port."""

    def down(_: bytes, context: Any) -> Iterator[bytes]:
        yield from _blocks(state)

    def up(chunks: Iterable[bytes], context: Any) -> bytes:
        return _keep(received, chunks)

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=_OPTIONS)
    handlers = {"Down": grpc.unary_stream_rpc_method_handler(down), "Up": grpc.stream_unary_rpc_method_handler(up)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(consortium.server_identity()))
    server.start()
    return server, port


class BareLink:
    """The site's end of the bare stream."""

    def __init__(self, consortium: Consortium, site: str, port: int) -> None:
        credentials = channel_credentials(consortium.site_identity(site))
        self._channel = grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=_OPTIONS)
        grpc.channel_ready_future(self._channel).result(timeout=30)

    def fetch(self, target: Path) -> str:
        """Bring the state to ``target``, and give its SHA-256."""
        return _keep(target, self._channel.unary_stream(f"/{_SERVICE}/Down")(b"")).decode()

    def submit(self, path: Path) -> str:
        """Send a file, and give the SHA-256 of what arrived."""
        return bytes(self._channel.stream_unary(f"/{_SERVICE}/Up")(_blocks(path))).decode()

    def close(self) -> None:
        """Let the connection go."""
        self._channel.close()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while block := file.read(CHUNK_BYTES):
            yield block


def _keep(path: Path, chunks: Iterable[bytes]) -> bytes:
    sha = hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        for chunk in chunks:
            sha.update(chunk)
            file.write(chunk)
        os.fsync(file.fileno())
    return sha.hexdigest().encode()
