"""The one door to the service: who calls, whether it may, how much, and what of its bytes is a message at all.

Nothing of a call is parsed before its certificate was looked at, and grpc itself parses nothing: a message that is none
is refused here, where it costs a line of log a minute at most. All methods take a stream of requests, also those of one
request: grpc would wait for that one in a thread of the pool before we know who calls, and without a limit of time.
"""

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf.message import DecodeError

from mammofed_server.limits import CALL_LIMITS, MAX_PART_BYTES, ActiveCall, Limiter, TooMuch
from mammofed_server.quiet_log import LONGEST_TEXT, QuietLog, quoted
from mammofed_server.sites import SiteBoard
from mammofed_server.trust import Revoked, Trust
from mammofed_shared.errors import IdentityError, ProtocolError
from mammofed_shared.protocol.tls import Peer, peer_of, require_current
from mammofed_shared.protocol.wire import CALLS, SERVICE

logger = logging.getLogger(__name__)

WATCH_EVERY_S = 1.0


class CallRefused(Exception):
    """A call ends with this status; raised anywhere below the gate."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Method(Protocol):
    """A method of the service: the site by its certificate, its request (or requests), and grpc's context."""

    def __call__(self, site: str, request: Any, context: grpc.ServicerContext, /) -> Any: ...


class Gate:
    """Lets calls of the run's sites through to the service's methods, and watches them while they last."""

    def __init__(self, run: str, consortium: str, board: SiteBoard, trust: Trust) -> None:
        self._run = run
        self._consortium = consortium
        self._board = board
        self._trust = trust
        self._limiter = Limiter()
        self._log = QuietLog(logger)
        self._stopped = threading.Event()
        self._watch = threading.Thread(target=self._keep_watch, daemon=True, name="gate")

    def start(self) -> None:
        """Begin to watch."""
        self._watch.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()

    def handlers(self, methods: dict[str, Method]) -> grpc.GenericRpcHandler:
        """The service for grpc: every method behind this gate."""
        return grpc.method_handlers_generic_handler(
            SERVICE, {name: self._handler(name, method) for name, method in methods.items()}
        )

    def peer(self, context: grpc.ServicerContext) -> Peer:
        """Who calls; for a call that was let through."""
        return peer_of(context.auth_context(), self._consortium)

    def active(self) -> list[ActiveCall]:
        """All calls that are under way."""
        return self._limiter.active()

    # ── one call ────────────────────────────────────────────────────────────────────────────────────────────

    def _handler(self, name: str, method: Method) -> Any:
        call = CALLS[name]

        def answer(raw: Iterator[bytes], context: grpc.ServicerContext) -> bytes | None:
            with closing(self._answers(name, method, raw, context)) as answers:
                return _ended(context, lambda: next(answers, None))

        def answer_streaming(raw: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            with closing(self._answers(name, method, raw, context)) as answers:
                while (message := _ended(context, lambda: next(answers, None))) is not None:
                    yield message

        if call.reply_streams:
            return grpc.stream_stream_rpc_method_handler(answer_streaming)
        return grpc.stream_unary_rpc_method_handler(answer)

    def _answers(
        self, name: str, method: Method, raw: Iterator[bytes], context: grpc.ServicerContext
    ) -> Generator[bytes]:
        """The replies of one call, as bytes.

        Raises:
            CallRefused: the only error that leaves, besides grpc's own when the site is gone.
        """
        active = self._admit(name, context)
        try:
            with self._limiter.entered(active):
                requests = _requests(active, raw)
                request = requests if CALLS[name].request_streams else next(requests, None)
                if request is None:
                    raise ProtocolError("a call without a request")
                reply = method(active.site, request, context)
                if not CALLS[name].reply_streams:
                    yield reply.SerializeToString()
                    return
                for item in reply:
                    message = item.SerializeToString()
                    with active.waiting():
                        yield message
        except TooMuch as error:
            self._refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, active.site, name, error)
        except (ProtocolError, IdentityError) as error:
            self._refuse(grpc.StatusCode.FAILED_PRECONDITION, active.site, name, error)
        except (CallRefused, grpc.RpcError, GeneratorExit):
            raise
        except Exception as error:
            # An error of ours, whatever brought it about: its words stay here, and the site waits and tries again.
            self._log.warning((active.site, name, "error"), "site %s: %s failed", active.site, name, exc_info=True)
            raise CallRefused(grpc.StatusCode.INTERNAL, "an error of the coordinator; see its log") from error

    def _admit(self, name: str, context: grpc.ServicerContext) -> ActiveCall:
        try:
            peer = peer_of(context.auth_context(), self._consortium)
        except IdentityError as error:
            self._refuse(grpc.StatusCode.UNAUTHENTICATED, "of an unknown peer", name, error)
        try:
            self._trust.check(peer)
        except Revoked as error:
            self._refuse(grpc.StatusCode.UNAUTHENTICATED, peer.site, name, error)
        except IdentityError as error:  # the lead must mend it; sites wait
            self._log.warning(("list",), "calls are refused: %s", error)
            raise CallRefused(
                grpc.StatusCode.UNAVAILABLE, "the coordinator's list of revoked certificates cannot be relied on"
            ) from error
        if peer.site not in self._board:
            message = f"site {peer.site} is not part of run {self._run}; the lead adds it to sites of the run"
            self._refuse(grpc.StatusCode.PERMISSION_DENIED, "outside the run", name, ProtocolError(message))
        try:
            self._limiter.take(peer.site, name)
        except TooMuch as error:
            self._refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, peer.site, name, error)
        self._board.certified(peer.site, peer.not_after)
        return ActiveCall(peer.site, name, peer, context)

    def _refuse(self, code: grpc.StatusCode, who: str, name: str, error: Exception) -> NoReturn:
        self._log.warning((who, name, type(error).__name__), "site %s: %s refused: %s", who, name, error)
        raise CallRefused(code, str(error)) from error

    # ── all calls ───────────────────────────────────────────────────────────────────────────────────────────

    def _keep_watch(self) -> None:
        while not self._stopped.wait(WATCH_EVERY_S):
            try:
                self._look()
            except Exception:
                self._log.warning(("watch",), "looking after calls failed", exc_info=True)

    def _look(self) -> None:
        self._trust.remind()
        for call in self._limiter.cut_silent():
            self._log.warning((call.site, call.name, "silence"), "site %s: %s cut: silent", call.site, call.name)
        now = datetime.now(UTC)
        for call in self._limiter.active():
            try:
                require_current(call.peer, now)
                self._trust.check(call.peer, now)
            except IdentityError as error:  # its next call hears why
                self._log.warning((call.site, call.name, "cut"), "site %s: %s cut: %s", call.site, call.name, error)
                call.cut = "identity"
                call.context.cancel()


def _requests(active: ActiveCall, raw: Iterator[bytes]) -> Iterator[Any]:
    """The messages in a call's bytes; each must be small enough and what the call expects."""
    kind, limit = CALLS[active.name].request, CALL_LIMITS[active.name].message_bytes
    while True:
        with active.waiting():
            data = next(raw, None)
        if data is None:
            return
        if len(data) > limit:
            raise ProtocolError(f"a message of {len(data)} bytes; {active.name} takes {limit}")
        limit = MAX_PART_BYTES  # an upload's header may hold thousands of numbers, its parts are chunks
        try:
            yield kind.FromString(data)
        except DecodeError as error:
            raise ProtocolError(f"not a message of {active.name}") from error


def _ended(context: grpc.ServicerContext, step: Callable[[], bytes | None]) -> bytes | None:
    try:
        return step()
    except CallRefused as refused:
        context.abort(refused.code, quoted(refused, 2 * LONGEST_TEXT))
        raise AssertionError("abort returned") from refused
