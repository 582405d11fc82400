"""The site's side of the mailbox: poll, fetch, submit. Every call is opened from here; nothing listens at the site.

A coordinator that is away is waited for, however long. A coordinator that refuses is not: that needs a person.
"""

import hashlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import grpc

from mammofed_shared.errors import ProtocolError, RefusalCode, Unreachable
from mammofed_shared.files import fsync_folder, write_all
from mammofed_shared.pki import Identity
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.plan import Plan, Update
from mammofed_shared.protocol.statement import Signed, statement_to_wire
from mammofed_shared.protocol.tls import channel_credentials
from mammofed_shared.protocol.wire import (
    CALLS,
    CHUNK_BYTES,
    MAX_MESSAGE_BYTES,
    PROTOCOL_VERSION,
    SERVICE,
    SOFTWARE_CONTRACT,
)
from mammofed_site.diagnosis import explain_unreachable, skew_words
from mammofed_site.gate import Gate, HeldBack

logger = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0
CALL_TIMEOUT_S = 60.0
"""For calls that carry no payload; a long poll ends after 20 s."""
SAY_AGAIN_AFTER_S = 60.0
"""How often the log repeats that the coordinator is away."""
LONGEST_DETAILS = 500
"""Characters of what the coordinator says that go into an error or a log line."""

_WAIT_FOR = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}
_REFUSALS = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


KeepReceipt = Callable[[Signed, bytes, bytes], None]
"""Takes a statement, the coordinator's signature for it, and its certificate chain in PEM."""


def forget_receipt(signed: Signed, receipt: bytes, chain_pem: bytes) -> None:
    """Keep nothing."""


class NotWanted(Exception):
    """The coordinator no longer wants this task: it was withdrawn, or its update was taken in earlier."""


class Interrupted(Exception):
    """The site itself broke off what was under way (``Link.interrupt``)."""


class Link:
    """One site's connection to the coordinator. All that it says goes out through ``gate``."""

    def __init__(self, site: str, server: str, identity: Identity, gate: Gate | None = None) -> None:
        self.gate = gate or Gate(site)
        self._site = site
        self._server = server
        self._identity = identity
        self._stopping = threading.Event()
        self._broken_off = threading.Event()
        self._connecting = threading.Lock()
        self._channels: list[grpc.Channel] = []
        self._calls: Mapping[str, Callable[..., Any]] = {}
        self._connect()

    def _connect(self) -> None:
        channel = grpc.secure_channel(
            self._server,
            channel_credentials(self._identity),
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.initial_reconnect_backoff_ms", 200),
                ("grpc.max_reconnect_backoff_ms", 5_000),
                ("grpc.enable_retries", 0),
            ],
        )
        calls: dict[str, Callable[..., Any]] = {}
        for name, call in CALLS.items():
            make = {
                (False, False): channel.unary_unary,
                (False, True): channel.unary_stream,
                (True, False): channel.stream_unary,
            }[call.request_streams, call.reply_streams]
            calls[name] = make(
                f"/{SERVICE}/{name}",
                request_serializer=self.gate.serialize,
                response_deserializer=call.reply.FromString,
            )
        self._channels.append(channel)
        self._calls = calls  # at once: another thread may be about to call

    def renew(self, identity: Identity) -> None:
        """Use a new certificate from now on; a transfer that is under way ends over the connection that it has."""
        self._reconnect(identity, keep=2)  # what is older is from the renewal before: a month ago

    def _reconnect(self, identity: Identity, keep: int) -> None:
        with self._connecting:
            self._identity = identity
            self._connect()
            older = self._channels[:-keep]
            del self._channels[:-keep]
        for channel in older:
            channel.close()

    def interrupt(self) -> None:
        """Break off every call that is under way, and refuse others until ``go_on``; from any thread."""
        self._broken_off.set()
        self._reconnect(self._identity, keep=1)  # closing a channel ends its calls

    def go_on(self) -> None:
        """Let calls be made again after ``interrupt``."""
        self._broken_off.clear()

    def close(self) -> None:
        """End every call that is under way."""
        self._stopping.set()
        self._broken_off.set()
        for channel in self._channels:
            channel.close()

    # ── the calls ───────────────────────────────────────────────────────────────────────────────────────────

    def hello(self, num_training_exams: int, num_test_exams: int, data: str = "", code: str = "") -> str:
        """Introduce this site (counts, digests of its data and source) and give the name of the run.

        Raises:
            Unreachable: the coordinator refuses this site or this version; the message is what it said.
        """
        request = pb.HelloRequest(
            protocol_version=PROTOCOL_VERSION,
            software_contract=SOFTWARE_CONTRACT,
            site=self._site,
            num_training_exams=num_training_exams,
            num_test_exams=num_test_exams,
            data=data,
            code=code,
        )
        asked = 0.0

        def ask() -> Any:
            nonlocal asked
            asked = time.time()
            return self._calls["Hello"](request, timeout=CALL_TIMEOUT_S)

        try:
            reply = self._patiently(ask)
        except NotWanted as error:
            raise Unreachable(f"the coordinator refuses to work with this site: {error}") from error
        words = skew_words(reply.time, asked, time.time())
        if words:
            logger.warning("%s", words)
        return str(reply.run)

    def poll(self, request: Any) -> Any:
        """Say how far this site is, and hear what is wanted."""
        request.protocol_version = PROTOCOL_VERSION
        return self._patiently(lambda: self._calls["Poll"](request, timeout=CALL_TIMEOUT_S))

    def poll_once(self, request: Any) -> Any | None:
        """As ``poll``, but None when the coordinator is away: a visit goes on without it."""
        request.protocol_version = PROTOCOL_VERSION
        try:
            return self._calls["Poll"](request, timeout=CALL_TIMEOUT_S)
        except (grpc.RpcError, ValueError) as error:  # ValueError: the link was closed a moment ago
            logger.debug("poll failed: %s", error)
        with suppress(HeldBack):  # it is in the audit record; the next poll says something else
            self.gate.raise_if_held()
        return None

    def fetch(self, plan: Plan, target: Path) -> None:
        """Bring the plan's state to ``target``, from the byte on that is there already.

        Raises:
            NotWanted: the task was withdrawn meanwhile.
            ProtocolError: what came twice is not what the plan's digest names.
        """
        wanted = plan.state
        assert wanted is not None, "a query has nothing to fetch"
        part = target.with_name(target.name + ".part")
        target.parent.mkdir(parents=True, exist_ok=True)
        for attempt in (1, 2):
            digest = self._patiently(lambda: self._fetch_rest(plan.task_id, wanted.size, part))
            if digest == wanted.digest:
                part.rename(target)
                fsync_folder(target.parent)
                return
            part.unlink()
            logger.warning("task %s: the state that came is not the plan's (attempt %d)", plan.task_id, attempt)
        raise ProtocolError("the coordinator's state does not have the digest that its plan names")

    def _fetch_rest(self, task_id: str, size: int, part: Path) -> str:
        sha = hashlib.sha256()
        with part.open("a+b", buffering=0) as file:
            file.seek(0)
            while block := file.read(2**22):
                sha.update(block)
            held = file.tell()
            if held < size:
                for chunk in self._calls["Fetch"](pb.FetchRequest(task_id=task_id, offset=held)):
                    data = chunk.data  # protobuf copies the bytes each time that they are asked for
                    sha.update(data)
                    write_all(file, data)
                    held += len(data)
                    if held > size:
                        raise ProtocolError("the coordinator sent more than the plan's state")
            os.fsync(file.fileno())
        return sha.hexdigest()

    def submit(
        self,
        update: Update,
        path: Path | None,
        signed: Signed | None = None,
        keep_receipt: KeepReceipt = forget_receipt,
    ) -> RefusalCode | None:
        """Send an update, from the byte on that the coordinator holds; None when it was accepted.

        Args:
            update: what ``release`` let out.
            path: its payload's file.
            signed: the site's statement on it.
            keep_receipt: takes what the coordinator gives for an accepted statement.

        Raises:
            NotWanted: the task was withdrawn, or its update was taken in before an answer was lost.
        """
        reply = self._patiently(lambda: self._submit_rest(update, path, signed, from_start=False))
        if reply.restart:
            reply = self._patiently(lambda: self._submit_rest(update, path, signed, from_start=True))
        if reply.accepted and signed is not None:
            keep_receipt(signed, reply.receipt, reply.receipt_chain)
        return None if reply.accepted else RefusalCode(reply.refusal_code)

    def _submit_rest(self, update: Update, path: Path | None, signed: Signed | None, *, from_start: bool) -> Any:
        statement = statement_to_wire(signed) if signed is not None else None
        header = pb.SubmitHeader(task_id=update.task_id, metrics=update.metrics, statement=statement)
        if update.payload is None or path is None:
            return self._upload(iter([pb.SubmitPart(header=header)]), timeout=CALL_TIMEOUT_S)
        if not from_start:
            request = pb.OffsetRequest(task_id=update.task_id)
            reply = self._calls["Offset"](request, timeout=CALL_TIMEOUT_S)
            header.offset = update.payload.size if reply.ended else reply.offset
        header.payload.digest = update.payload.digest
        header.payload.size = update.payload.size
        return self._upload(_parts(header, path))

    def _upload(self, parts: Iterator[Any], timeout: float | None = None) -> Any:
        with self.gate.passage() as passage:
            call = self._channels[-1].stream_unary(
                f"/{SERVICE}/Submit",
                request_serializer=passage.serialize,
                response_deserializer=pb.SubmitReply.FromString,
            )
            return call(parts, timeout=timeout)

    def fail(self, task_id: str, code: RefusalCode) -> None:
        """Say that a task could not be done: a code, nothing else."""
        request = pb.FailRequest(task_id=task_id, refusal_code=code.value)
        self._patiently(lambda: self._calls["Fail"](request, timeout=CALL_TIMEOUT_S))

    def ask_renewal(self, certificate_request: bytes) -> bytes | None:
        """A new certificate chain for this site, PEM; None when the coordinator is away, or gives none now."""
        request = pb.RenewRequest(certificate_request=certificate_request)
        try:
            return bytes(self._calls["Renew"](request, timeout=CALL_TIMEOUT_S).certificate_chain)
        except (grpc.RpcError, ValueError) as error:  # ValueError: the link was closed a moment ago
            logger.warning("the coordinator gave no new certificate: %s", _words_of(error))
            return None

    # ── patience ────────────────────────────────────────────────────────────────────────────────────────────

    def _patiently(self, call: Callable[[], T]) -> T:
        """Call until the coordinator answers.

        Raises:
            Unreachable: it refuses this site.
            NotWanted: it refuses this call.
            HeldBack: the gate does not let the call out.
            Interrupted: by ``interrupt``.
        """
        wait_s = FIRST_WAIT_S
        last_said = 0.0
        while True:
            self._check_wanted()
            try:
                return call()
            except ValueError:  # the channel was closed a moment ago
                self._check_wanted()
                raise
            except grpc.RpcError as error:
                self._check_wanted()
                self.gate.raise_if_held()
                status = error.code()
                if status in _REFUSALS:
                    raise Unreachable(f"the coordinator refuses this site: {_words_of(error)}") from error
                if status not in _WAIT_FOR:
                    raise NotWanted(_words_of(error)) from error
                if time.monotonic() - last_said > SAY_AGAIN_AFTER_S:
                    last_said = time.monotonic()
                    if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
                        logger.warning("the coordinator asks this site to wait: %s", _words_of(error))
                    else:
                        logger.warning("%s", explain_unreachable(self._server, self._identity, _words_of(error)))
            self._broken_off.wait(wait_s * random.uniform(0.75, 1.25))
            if self._stopping.is_set():
                raise Unreachable("the link was closed")
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    def _check_wanted(self) -> None:
        if self._broken_off.is_set():
            raise Unreachable("the link was closed") if self._stopping.is_set() else Interrupted


def _words_of(error: Exception) -> str:
    """What grpc or the coordinator says of a failed call, cut where a log line should end."""
    said = error.details() if isinstance(error, grpc.RpcError) else error
    return ascii(str(said))[1:-1][:LONGEST_DETAILS]


def _parts(header: Any, path: Path) -> Iterator[Any]:
    yield pb.SubmitPart(header=header)
    with path.open("rb", buffering=0) as file:
        file.seek(header.offset)
        while block := file.read(CHUNK_BYTES):
            yield pb.SubmitPart(data=block)
