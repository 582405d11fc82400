"""The one gate through which a site's words go out: every message becomes bytes here, or it does not leave.

``Gate.serialize`` is the serializer of each grpc call of ``link.py``, so nothing can be sent around it. It lets through
what ``wire_rules.py`` allows, field by field. An update needs more: ``egress.release`` must have passed it, its
header must say exactly what was released, and each byte is compared with the released file while it leaves.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-not-found]

from mammofed_shared.errors import MammofedError
from mammofed_shared.protocol.plan import Update
from mammofed_shared.protocol.statement import metrics_digest
from mammofed_shared.protocol.wire import CHUNK_BYTES
from mammofed_site.audit import Audit
from mammofed_site.wire_rules import rules_of

Identity = tuple[int, ...]


class HeldBack(MammofedError):
    """A message was not let out; the text names its type and field, never what it held."""


@dataclass(frozen=True, slots=True)
class _Released:
    update: Update
    path: Path | None
    file: Identity
    """Of the released file: a later change of it shows."""


class Gate:
    """What of one site may leave now."""

    def __init__(self, site: str, audit: Audit | None = None) -> None:
        self._rules = rules_of(site)
        self._audit = audit
        self._lock = threading.Lock()
        self._released: _Released | None = None
        self._num_held: dict[str, int] = {}
        self._held: dict[int, HeldBack] = {}
        """By the thread whose call it was."""
        self.num_sent = 0
        """Bytes of the last released file that were let out."""

    def open_for(self, update: Update, path: Path | None) -> None:
        """Let an update out that ``egress.release`` has passed; what was released before may not leave any more."""
        identity = _identity(path.stat()) if path is not None and update.payload is not None else ()
        self._released = _Released(update, path, identity)
        self.num_sent = 0

    def close(self) -> None:
        """Let no update out until the next one is released."""
        self._released = None

    def serialize(self, message: Any) -> bytes:
        """A message's bytes, for grpc.

        Raises:
            HeldBack: it may not leave; the audit record says so.
        """
        with self._lock:
            self._held.pop(threading.get_ident(), None)  # of an earlier call, for which nobody asked
        try:
            self._check(message)
        except HeldBack as error:
            self.hold_back(error, threading.get_ident())
            raise
        return bytes(message.SerializeToString())

    def raise_if_held(self) -> None:
        """Raise what was held back in this thread's call: grpc tells its caller only that it failed."""
        with self._lock:
            error = self._held.pop(threading.get_ident(), None)
        if error is not None:
            raise error

    def hold_back(self, error: HeldBack, caller: int) -> None:
        """Remember that a message did not leave, and write it down: the first of its kind, the 10th, the 100th …"""
        with self._lock:
            self._held[caller] = error
            count = self._num_held[str(error)] = self._num_held.get(str(error), 0) + 1
        if self._audit is not None and count == 10 ** (len(str(count)) - 1):
            self._audit.write("held back", what=str(error), times=count)

    @contextmanager
    def passage(self) -> Iterator["Passage"]:
        """The way out of one upload of what was released last, for as long as the call lasts."""
        released = self._released
        if released is None or released.path is None or released.update.payload is None:
            yield Passage(self, released, None)
            return
        with released.path.open("rb", buffering=0) as file:
            passage = Passage(self, released, file.fileno())
            try:
                yield passage
            finally:
                passage.close()

    def _check(self, message: Any) -> None:
        self.check_fields(message)
        if message.DESCRIPTOR.name == "SubmitPart":
            raise HeldBack("SubmitPart: leaves in an upload only")

    def check_fields(self, message: Any) -> None:
        """Return if each field of a message holds what its rule allows."""
        name = message.DESCRIPTOR.name
        rules = self._rules.get(name)
        if rules is None:
            raise HeldBack(f"{name}: no message of a site")
        if len(UnknownFieldSet(message)):
            raise HeldBack(f"{name}: a field that this version does not know")
        for field in message.DESCRIPTOR.fields:
            rule = rules.get(field.name)
            if rule is None:
                raise HeldBack(f"{name}.{field.name}: has no rule")
            if field.has_presence and not message.HasField(field.name):
                continue
            value = getattr(message, field.name)
            if not rule.message:
                if not rule.allows(value):
                    raise HeldBack(f"{name}.{field.name}: not {rule.says} ({rule.bound})")
                continue
            inner = [value] if field.has_presence else list(value)
            if len(inner) > rule.most:
                raise HeldBack(f"{name}.{field.name}: more than {rule.most}")
            for item in inner:
                self.check_fields(item)


class Passage:
    """One upload on its way out. Each has its own place in the file: one that was cut may still be ending."""

    def __init__(self, gate: Gate, released: _Released | None, descriptor: int | None) -> None:
        self._gate = gate
        self._released = released
        self._descriptor = descriptor
        self._caller = threading.get_ident()  # grpc asks for the parts in a thread of its own
        self._next: int | None = None
        """Of the file's bytes, the next that may leave; None before the header."""
        self._lock = threading.Lock()
        self._is_closed = False

    def close(self) -> None:
        """The call has ended; grpc's thread may still ask for a part that will go nowhere."""
        with self._lock:
            self._is_closed = True

    def serialize(self, part: Any) -> bytes:
        """The bytes of the next part of the upload, for grpc; none once the call has ended.

        Raises:
            HeldBack: it is not the header of what was released, or not the next bytes of its file.
        """
        with self._lock:
            return b"" if self._is_closed else self._serialized(part)

    def _serialized(self, part: Any) -> bytes:
        try:
            if part.WhichOneof("part") == "data":
                return self._chunk(part)
            self._check_header(part)
        except (HeldBack, OSError) as error:
            held = error if isinstance(error, HeldBack) else HeldBack("SubmitPart.data: the released file is gone")
            self._gate.hold_back(held, self._caller)
            raise held from error
        return bytes(part.SerializeToString())

    def _check_header(self, part: Any) -> None:
        self._gate.check_fields(part)
        header, released = part.header, self._released
        if part.WhichOneof("part") != "header" or self._next is not None:
            raise HeldBack("SubmitPart: an upload begins with its header, and has one")
        if released is None or header.task_id != released.update.task_id:
            raise HeldBack("SubmitHeader.task_id: nothing was released for it")
        if _without_clock(header.metrics) != _without_clock(released.update.metrics):
            raise HeldBack("SubmitHeader.metrics: not the numbers that were released")
        payload = released.update.payload
        told = (header.payload.digest, header.payload.size) if header.HasField("payload") else None
        if told != ((payload.digest, payload.size) if payload is not None else None):
            raise HeldBack("SubmitHeader.payload: not the file that was released")
        if header.HasField("statement"):
            _check_statement(header)
        self._next = header.offset

    def _chunk(self, part: Any) -> bytes:
        if len(UnknownFieldSet(part)):
            raise HeldBack("SubmitPart: a field that this version does not know")
        data = part.data
        if self._released is None or self._descriptor is None or self._next is None:
            raise HeldBack("SubmitPart.data: no released file")
        if not 0 < len(data) <= CHUNK_BYTES:
            raise HeldBack(f"SubmitPart.data: more than {CHUNK_BYTES} bytes, or none")
        if _identity(os.fstat(self._descriptor)) != self._released.file:
            raise HeldBack("SubmitPart.data: the file has changed since it was released")
        if os.pread(self._descriptor, len(data), self._next) != data:
            raise HeldBack("SubmitPart.data: not the next bytes of the released file")
        self._next += len(data)
        self._gate.num_sent = self._next
        return bytes(part.SerializeToString())


def _without_clock(metrics: Mapping[str, float]) -> dict[str, float]:
    """All numbers but the one that is another when a finished visit is sent again with its first statement."""
    return {name: value for name, value in metrics.items() if name != "duration_s"}


def _check_statement(header: Any) -> None:
    if header.statement.metrics != metrics_digest(header.metrics):
        raise HeldBack("Statement.metrics: not the numbers beside it")
    if header.statement.update != header.payload.digest:
        raise HeldBack("Statement.update: not the file that was released")


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
