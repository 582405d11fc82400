"""The mailbox as a gRPC service over mutual TLS. Who calls is what the certificate says, and nothing else."""

import base64
import logging
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, NoReturn

import grpc

from mammofed_server import ca
from mammofed_server.mailbox import Confirm, Mailbox, Outcome, RestartUpload, Upload, unsigned
from mammofed_server.notary import Notary
from mammofed_server.sites import SiteBoard
from mammofed_shared.errors import IdentityError, ProtocolError, RefusalCode
from mammofed_shared.pki import Identity
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.plan import PayloadReference
from mammofed_shared.protocol.tls import peer_site, server_credentials
from mammofed_shared.protocol.wire import (
    CALLS,
    CHUNK_BYTES,
    LONG_POLL_S,
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    SERVICE,
    SOFTWARE_CONTRACT,
    plan_to_wire,
)
from mammofed_shared.revision import source_digest

logger = logging.getLogger(__name__)

THREADS_PER_SITE = 3
"""One long poll, one transfer, one to spare: a site that hangs cannot starve the others."""


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
        notary: Notary | None = None,
    ) -> None:
        self._run = run
        self._consortium = consortium
        self._mailbox = mailbox
        self._board = board
        self._run_state = run_state
        self._renewal_folder = renewal_folder
        self._notary = notary

    def hello(self, site: str, request: Any, context: grpc.ServicerContext) -> Any:
        """Refuse what cannot work together; otherwise note who is there."""
        if request.site != site:
            _refuse(
                context,
                grpc.StatusCode.PERMISSION_DENIED,
                f"the certificate is of {site}, not of {request.site!r}",
            )
        if request.protocol_version != PROTOCOL_VERSION:
            _refuse(
                context,
                grpc.StatusCode.FAILED_PRECONDITION,
                f"protocol version {request.protocol_version} at the site, {PROTOCOL_VERSION} here: install the same "
                "version of mammofed",
            )
        if request.software_contract != SOFTWARE_CONTRACT:
            _refuse(
                context,
                grpc.StatusCode.FAILED_PRECONDITION,
                f"software {request.software_contract!r} at the site, {SOFTWARE_CONTRACT!r} here: install the same "
                "version of mammofed",
            )
        if self._notary is not None:
            self._notary.meet(site, request.protocol_version, context.auth_context())
        if request.code and request.code != source_digest():
            logger.warning("site %s runs other source than this coordinator; its statements will say which", site)
        self._board.hello(site, request.num_training_exams, request.num_test_exams)
        logger.info(
            "site %s connected: %d training exams, %d test exams",
            site,
            request.num_training_exams,
            request.num_test_exams,
        )
        return pb.HelloReply(protocol_version=PROTOCOL_VERSION, software_contract=SOFTWARE_CONTRACT, run=self._run)

    def poll(self, site: str, request: Any, context: grpc.ServicerContext) -> Any:
        """Note progress; give the next plan to a site that is ready for it."""
        is_wanted = self._mailbox.is_open(site, request.task_id)
        self._board.polled(site, request, request.task_id if is_wanted else "")
        state, plan = self._run_state(), None
        if not request.task_id and state not in _OVER and request.state not in _HOLDS_STILL:
            plan = self._mailbox.next_plan(site, min(request.wait_s, LONG_POLL_S))
            state = self._run_state()  # it may have ended while the site waited
        if not request.task_id and state in _OVER:  # a site in the middle of a visit asks again when it has stopped
            self._board.told_end(site)
        cancel = bool(request.task_id) and (state in _OVER or not is_wanted)
        return pb.PollReply(run_state=state, cancel=cancel, plan=plan_to_wire(plan) if plan is not None else None)

    def fetch(self, site: str, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        """The state of an open plan, from an offset on."""
        state, path = self._mailbox.state_of(site, request.task_id)
        if request.offset > state.size:
            _refuse(context, grpc.StatusCode.OUT_OF_RANGE, "offset beyond the state")
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
        chain = ca.renew(self._renewal_folder, site, request.certificate_request)
        if self._notary is not None:
            self._notary.renewed(site, chain)
        logger.info("site %s renewed its certificate", site)
        return pb.RenewReply(certificate_chain=chain)

    def handlers(self) -> grpc.GenericRpcHandler:
        """The service for grpc, every method behind the same identity check."""
        methods: dict[str, Callable[..., Any]] = {
            "Hello": self.hello,
            "Poll": self.poll,
            "Fetch": self.fetch,
            "Offset": self.offset,
            "Submit": self.submit,
            "Fail": self.fail,
            "Renew": self.renew,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE, {name: self._handler(name, method) for name, method in methods.items()}
        )

    def _handler(self, name: str, method: Callable[..., Any]) -> Any:
        call = CALLS[name]

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            site = self._site_of(context)
            try:
                return method(site, request, context)
            except (ProtocolError, IdentityError) as error:
                _refuse_quietly(context, site, name, error)

        def answer_streaming(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            site = self._site_of(context)
            try:
                yield from method(site, request, context)
            except ProtocolError as error:
                _refuse_quietly(context, site, name, error)

        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
        }[call.request_streams, call.reply_streams]
        return make(
            answer_streaming if call.reply_streams else answer,
            request_deserializer=call.request.FromString,
            response_serializer=call.reply.SerializeToString,
        )

    def _site_of(self, context: grpc.ServicerContext) -> str:
        try:
            site = peer_site(context.auth_context(), self._consortium)
        except IdentityError as error:
            logger.warning("a call was refused: %s", error)
            _refuse(context, grpc.StatusCode.UNAUTHENTICATED, str(error))
        if site not in self._board:
            logger.warning("site %s is not part of run %s; its call was refused", site, self._run)
            _refuse(context, grpc.StatusCode.PERMISSION_DENIED, f"site {site} is not part of run {self._run}")
        return site


def _reference(wire: Any) -> PayloadReference:
    try:
        return PayloadReference(digest=wire.digest, size=wire.size)
    except ValueError as error:
        raise ProtocolError("a payload's digest is not a SHA-256") from error


def _refuse(context: grpc.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
    context.abort(code, message)
    raise AssertionError("abort returned")


def _refuse_quietly(context: grpc.ServicerContext, site: str, call: str, error: Exception) -> NoReturn:
    logger.warning("site %s: %s refused: %s", site, call, error)
    _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))


def start_server(
    service: FederationService, identity: Identity, listen: str, num_sites: int
) -> tuple[grpc.Server, int]:
    """Start answering on ``listen``; gives the server and the port it got (port 0 asks for any)."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=THREADS_PER_SITE * num_sites + 2, thread_name_prefix="call"),
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ],
    )
    server.add_generic_rpc_handlers((service.handlers(),))
    port = server.add_secure_port(listen, server_credentials(identity))
    server.start()
    return server, port
