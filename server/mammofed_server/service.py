"""The mailbox as a gRPC service over mutual TLS. Who calls is what the certificate says, and nothing else.

Methods get the site from the gate (gate.py), which has checked certificate, rate and form before.
"""

import base64
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, NoReturn

import grpc

from mammofed_server import ca
from mammofed_server.gate import CallRefused, Gate
from mammofed_server.limits import (
    CALLS_PER_SITE,
    HANDSHAKE_S,
    MAX_METADATA_BYTES,
    MOST_CALLS,
    ROOM_TO_JOIN,
    SPARE_THREADS,
    STREAMS_PER_CONNECTION,
)
from mammofed_server.mailbox import Confirm, Mailbox, Outcome, RestartUpload, Upload, unsigned
from mammofed_server.notary import Notary
from mammofed_server.quiet_log import quoted
from mammofed_server.sites import SiteBoard
from mammofed_server.spool import NotNow
from mammofed_server.trust import Trust
from mammofed_shared.errors import ProtocolError, RefusalCode
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.plan import PayloadReference, Plan
from mammofed_shared.protocol.tls import server_credentials
from mammofed_shared.protocol.wire import (
    CHUNK_BYTES,
    LONG_POLL_S,
    MAX_MESSAGE_BYTES,
    OLDEST_PROTOCOL,
    PROTOCOL_VERSION,
    SOFTWARE_CONTRACT,
    UPGRADE_SITE,
    plan_to_wire,
    upgrade_words,
    version_needed,
)
from mammofed_shared.revision import source_digest

logger = logging.getLogger(__name__)


_OVER = frozenset({pb.FINISHED, pb.CANCELLED, pb.STOPPED})
_HOLDS_STILL = frozenset({pb.OUT_OF_HOURS, pb.VETOED})
"""States of a site that is there and takes no plan."""


class FederationService:
    """Answers the calls of federation.proto."""

    def __init__(
        self,
        run: str,
        consortium: str,
        mailbox: Mailbox,
        board: SiteBoard,
        run_state: Callable[[], pb.RunState],
        renewal_folder: Path,
        trust: Trust,
        notary: Notary | None = None,
    ) -> None:
        self.gate = Gate(run, consortium, board, trust)
        self._run = run
        self._mailbox = mailbox
        self._board = board
        self._run_state = run_state
        self._renewal_folder = renewal_folder
        self._notary = notary

    def hello(self, site: str, request: Any, context: grpc.ServicerContext) -> Any:
        """Refuse what cannot work together; otherwise note who is there."""
        if request.site != site:
            _refuse(
                grpc.StatusCode.PERMISSION_DENIED,
                f"wrong site: the certificate is of {site}, not of '{quoted(request.site, 40)}'; correct --site, or "
                "the setting identity",
            )
        words = upgrade_words(request.protocol_version, request.software_contract)
        if words:
            _refuse(grpc.StatusCode.FAILED_PRECONDITION, words)
        if self._notary is not None:
            self._notary.meet(site, request.protocol_version, context.auth_context())
        if request.code and request.code != source_digest():
            logger.warning("site %s runs other source than this coordinator; its statements will say which", site)
        self._board.hello(
            site, request.num_training_exams, request.num_test_exams, protocol_version=request.protocol_version
        )
        logger.info(
            "site %s connected: %d training exams, %d test exams",
            site,
            request.num_training_exams,
            request.num_test_exams,
        )
        return pb.HelloReply(
            protocol_version=max(OLDEST_PROTOCOL, min(request.protocol_version, PROTOCOL_VERSION)),
            software_contract=SOFTWARE_CONTRACT,
            run=self._run,
            time=_now_s(),
        )

    def poll(self, site: str, request: Any, context: grpc.ServicerContext) -> Any:
        """Note progress; give the next plan to a site that is ready for it."""
        is_wanted = self._mailbox.is_open(site, request.task_id)
        self._board.polled(site, request, request.task_id if is_wanted else "")
        state, plan = self._run_state(), None
        if not request.task_id and state not in _OVER and request.state not in _HOLDS_STILL:
            plan = self._mailbox.next_plan(site, min(request.wait_s, LONG_POLL_S))
            if plan is not None:
                _require_version(request.protocol_version or OLDEST_PROTOCOL, plan)
            state = self._run_state()  # it may have ended while the site waited
        if not request.task_id and state in _OVER:  # a site in the middle of a visit asks again when it has stopped
            self._board.told_end(site)
        cancel = bool(request.task_id) and (state in _OVER or not is_wanted)
        return pb.PollReply(run_state=state, cancel=cancel, plan=plan_to_wire(plan) if plan is not None else None)

    def fetch(self, site: str, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """The state of an open plan, from an offset on."""
        state, path = self._mailbox.state_of(site, request.task_id)
        if request.offset > state.size:
            _refuse(grpc.StatusCode.OUT_OF_RANGE, "offset beyond the state")
        with path.open("rb", buffering=0) as file:
            file.seek(request.offset)
            while block := file.read(CHUNK_BYTES):
                yield pb.Chunk(data=block)

    def offset(self, site: str, request: Any, context: grpc.ServicerContext) -> Any:
        """How much of an update is held."""
        offset = self._mailbox.offset(site, request.task_id)
        return pb.OffsetReply(ended=True) if offset is None else pb.OffsetReply(offset=offset)

    def submit(self, site: str, parts: Iterator[Any], context: grpc.ServicerContext) -> Any:
        """Take an update in; the verdict is final."""
        first = next(parts, None)
        if first is None or first.WhichOneof("part") != "header":
            raise ProtocolError("an upload must begin with its header")
        header = first.header
        upload = Upload(
            task_id=header.task_id,
            payload=_reference(header.payload) if header.HasField("payload") else None,
            metrics=dict(header.metrics),
            offset=header.offset,
            confirm=self._confirm(header, context),
        )
        try:
            outcome = self._mailbox.receive(site, upload, (part.data for part in parts))
        except RestartUpload:
            return pb.SubmitReply(accepted=False, restart=True)
        except NotNow as error:  # the site waits and asks again
            raise CallRefused(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error
        if outcome.refusal is None:
            return self._receipt(outcome)
        return pb.SubmitReply(accepted=False, refusal_code=RefusalCode[outcome.refusal].value)

    def _confirm(self, header: Any, context: grpc.ServicerContext) -> Confirm:
        notary = self._notary
        if notary is None:
            return unsigned
        wire = header.statement if header.HasField("statement") else None
        return lambda plan, upload: notary.confirm(plan, upload, wire, context.auth_context())

    def _receipt(self, outcome: Outcome) -> Any:
        if self._notary is None or outcome.signed is None:
            return pb.SubmitReply(accepted=True)
        signed = outcome.signed
        return pb.SubmitReply(
            accepted=True,
            receipt=base64.b64decode(signed.receipt),
            receipt_chain=self._notary.chain_pem(signed.receipt_certificate),
        )

    def fail(self, site: str, request: Any, context: grpc.ServicerContext) -> Any:
        """A visit failed at its site."""
        try:
            code = RefusalCode(request.refusal_code)
        except ValueError as error:
            raise ProtocolError("an unknown refusal code") from error
        self._mailbox.fail(site, request.task_id, code)
        logger.warning("task %s failed at the site: %s", request.task_id, code.name)
        return pb.FailReply()

    def renew(self, site: str, request: Any, context: grpc.ServicerContext) -> Any:
        """A new certificate for the site that calls."""
        enrolment = self.gate.peer(context).enrolment
        chain = ca.renew(self._renewal_folder, site, request.certificate_request, enrolment)
        if self._notary is not None:
            self._notary.renewed(site, chain)
        logger.info("site %s renewed its certificate", site)
        return pb.RenewReply(certificate_chain=chain)

    def handlers(self) -> grpc.GenericRpcHandler:
        """The service for grpc, every method behind the same gate."""
        return self.gate.handlers(
            {
                "Hello": self.hello,
                "Poll": self.poll,
                "Fetch": self.fetch,
                "Offset": self.offset,
                "Submit": self.submit,
                "Fail": self.fail,
                "Renew": self.renew,
            }
        )


def _now_s() -> float:
    return time.time()


def _reference(wire: Any) -> PayloadReference:
    try:
        return PayloadReference(digest=wire.digest, size=wire.size)
    except ValueError as error:
        raise ProtocolError("a payload's digest is not a SHA-256") from error


def _require_version(spoken: int, plan: Plan) -> None:
    if spoken < version_needed(plan):
        _refuse(
            grpc.StatusCode.PERMISSION_DENIED,
            f"protocol version {spoken} at the site, but this run's settings need {version_needed(plan)}: "
            f"{UPGRADE_SITE}",
        )


def _refuse(code: grpc.StatusCode, message: str) -> NoReturn:
    raise CallRefused(code, message)


class RunningServer:
    """A server that answers, and the watch over its calls."""

    def __init__(self, server: grpc.Server, gate: Gate) -> None:
        self._server = server
        self._gate = gate

    def stop(self, grace: float | None) -> threading.Event:
        """Answer no more; the event is set when all calls have ended."""
        self._gate.stop()
        ended: threading.Event = self._server.stop(grace)
        return ended


def start_server(service: FederationService, trust: Trust, listen: str, num_sites: int) -> tuple[RunningServer, int]:
    """Start answering on ``listen``; gives the server and the port it got (port 0 asks for any)."""
    server = grpc.server(
        # Threads are started as they are needed; sites may join the run while it goes on.
        futures.ThreadPoolExecutor(
            CALLS_PER_SITE * (num_sites + ROOM_TO_JOIN) + SPARE_THREADS, thread_name_prefix="call"
        ),
        maximum_concurrent_rpcs=MOST_CALLS,
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_metadata_size", MAX_METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA_BYTES),
            ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_S * 1000),
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ],
    )
    server.add_generic_rpc_handlers((service.handlers(),))
    port = server.add_secure_port(listen, server_credentials(trust.identity, trust.newer_identity))
    server.start()
    service.gate.start()
    return RunningServer(server, service.gate), port
