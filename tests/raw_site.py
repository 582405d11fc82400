"""A site without our client: a channel with an enrolled certificate over which bytes of any kind can be sent."""

from collections.abc import Callable, Iterable
from typing import Any

import grpc

from mammofed_shared.pki import Identity
from mammofed_shared.protocol.tls import channel_credentials
from mammofed_shared.protocol.wire import CALLS, SERVICE

OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]


class RawSite:
    """Speaks to a coordinator in bytes."""

    def __init__(self, identity: Identity, port: int, *options: tuple[str, Any]) -> None:
        # A pool of its own: else channels of one identity in a process share a connection.
        own = ("grpc.use_local_subchannel_pool", 1)
        self.channel = grpc.secure_channel(
            f"127.0.0.1:{port}", channel_credentials(identity), options=[*OPTIONS, own, *options]
        )

    def call(self, name: str) -> Callable[..., Any]:
        """A method as a callable of bytes, or of an iterable of them where the request streams."""
        call = CALLS[name]
        make = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, False): self.channel.stream_unary,
        }[call.request_streams, call.reply_streams]
        return make(f"/{SERVICE}/{name}")  # type: ignore[no-any-return]

    def streams(self, name: str) -> Callable[..., Any]:
        """The same method as a call of many requests and replies, whatever the service says."""
        return self.channel.stream_stream(f"/{SERVICE}/{name}")  # type: ignore[no-any-return]

    def outcome(self, name: str, request: bytes | Iterable[bytes], timeout: float = 10.0, **options: Any) -> str:
        """``OK``, or the status and its words; a streamed reply is read to its end."""
        try:
            sent = iter(request) if CALLS[name].request_streams else request
            reply = self.call(name)(sent, timeout=timeout, **options)
            if CALLS[name].reply_streams:
                for _ in reply:
                    pass
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        return "OK"

    def close(self) -> None:
        """End every call."""
        self.channel.close()
