"""The durable spool: plans out, updates in. Files and a lock; it knows neither gRPC nor Flower.

    <folder>/<task>/update.part          bytes of an upload that is under way
    <folder>/<task>/update.safetensors   the whole update that was checked; sent.safetensors, if it came encoded
    <folder>/<task>/outcome.json         the verdict; written last, it ends the task

A task's id is deterministic, so everything here may happen twice: a plan that is put again finds its outcome, an
upload that is sent again finds its bytes. After a kill the folder alone says how far things were.
"""

import logging
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mammofed_server.spool import (
    PART_FILE,
    SENT_FILE,
    WHOLE_FILE,
    NotNow,
    SpoolRoom,
    append,
    bytes_of_task,
    remove_orphans,
    reopen,
)
from mammofed_shared.config.base import Settings
from mammofed_shared.errors import PayloadError, ProtocolError, RefusalCode, Refused
from mammofed_shared.files import fsync_folder, is_full, write_whole
from mammofed_shared.protocol.encoding import decode, expected_tensors, payload_bytes
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.protocol.plan import TASK_ID, PayloadReference, Plan
from mammofed_shared.protocol.release import check_metrics, check_tensors
from mammofed_shared.protocol.statement import Countersigned
from mammofed_shared.protocol.task_spec import TaskSpec

logger = logging.getLogger(__name__)

MAX_OVERHEAD_BYTES = 16 * 2**20
"""An update may be larger than its tensors by a header, not by more."""

POSTPONED = frozenset({RefusalCode.VETOED, RefusalCode.OUT_OF_HOURS})
"""A hospital that says so may do the task later; whether it is waited for is the grid's part."""


class Outcome(Settings):
    """How a task ended: with an update, with numbers only (an evaluation or a query), or with a refusal code."""

    task_id: str
    payload: PayloadReference | None = None
    """What the site sent."""
    decoded: PayloadReference | None = None
    """The whole update that was made of it; None: it was sent whole."""
    metrics: Mapping[str, float] = {}
    refusal: str | None = None
    signed: Countersigned | None = None
    """The site's statement, when it made one."""


def unsigned(plan: Plan, upload: "Upload") -> None:
    """For a coordinator without a key, as in tests of the spool."""


@dataclass(frozen=True, slots=True)
class Upload:
    """The header of one ``Submit``."""

    task_id: str
    payload: PayloadReference | None
    metrics: Mapping[str, float]
    offset: int
    confirm: "Confirm" = unsigned
    """Checks and countersigns the statement that came with it; raises ``Refused``."""


Confirm = Callable[[Plan, Upload], Countersigned | None]


class RestartUpload(Exception):
    """The bytes do not match their digest, for the first time or after a resumption: the site shall send them again
    from the beginning."""


class Offer(NamedTuple):
    """An open plan, its state's file as the site gets it, and the whole state, to which a difference is added."""

    plan: Plan
    state: Path | None
    base: Path | None


class Mailbox:
    """Tasks of one run that are open now, and their outcomes. Safe to use from every thread."""

    def __init__(self, folder: Path, spec: TaskSpec, quota: int | None = None) -> None:
        self._folder = folder
        self._spec = spec
        self._room = SpoolRoom(folder, quota)
        self._changed = threading.Condition()
        self._open: dict[str, Offer] = {}
        self._receiving: set[str] = set()
        self._restarted: set[str] = set()
        self._closed = False

    # ── the coordinator's side ──────────────────────────────────────────────────────────────────────────────

    def put(self, plan: Plan, state: Path | None, base: Path | None = None) -> None:
        """Offer a plan and its state's file, if it has one, to its site.

        Putting it again changes nothing; a task that has its outcome stays ended.

        Args:
            base: the whole state, where ``state`` is its encoded form.
        """
        folder = self.task_folder(plan.task_id)
        with suppress(OSError):  # a full disk: the folder is made when the update comes
            folder.mkdir(parents=True, exist_ok=True)
        with self._changed:
            if self.outcome(plan.task_id) is None:
                reopen(folder)  # killed between rename and verdict: let the site's Submit decide again
                self._open[plan.task_id] = Offer(plan, state, base or state)
            self._changed.notify_all()

    def wait(self, task_ids: Iterable[str], timeout_s: float) -> list[Outcome]:
        """Outcomes of those of the tasks that have ended; waits until there is one or the time is over."""
        wanted = list(task_ids)
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or any(task_id not in self._open for task_id in wanted), timeout_s
            )
            ended = [task_id for task_id in wanted if task_id not in self._open]
        return [outcome for task_id in ended if (outcome := self.outcome(task_id)) is not None]

    def outcome(self, task_id: str) -> Outcome | None:
        """The verdict on a task, if it has one."""
        path = self.task_folder(task_id) / "outcome.json"
        return Outcome.model_validate_json(path.read_text()) if path.exists() else None

    def update_path(self, task_id: str) -> Path:
        """The accepted update of a task, whole; what was sent lies beside it where it came encoded."""
        return self.task_folder(task_id) / WHOLE_FILE

    def give_up(self, task_id: str, code: RefusalCode) -> None:
        """Wait no longer for an open task; a site that comes back with it hears the code."""
        with self._changed:
            offer = self._open.get(task_id)
        if offer is not None:
            with suppress(ProtocolError):  # it came at the last moment
                self._conclude(offer.plan, Outcome(task_id=task_id, refusal=code.name))

    def forget(self, task_id: str) -> None:
        """Remove all that is kept of a task, once its turn is committed or a failed task shall be tried again."""
        with self._changed:
            self._open.pop(task_id, None)
            shutil.rmtree(self.task_folder(task_id), ignore_errors=True)

    def clear(self, is_needed: Callable[[str], bool]) -> None:
        """Remove what is left of tasks that are not open and whose id ``is_needed`` does not know."""
        with self._changed:
            remove_orphans(self._folder, lambda task_id: task_id in self._open or is_needed(task_id))

    def close(self) -> None:
        """Withdraw every open plan; sites that poll are told to stop."""
        with self._changed:
            self._closed = True
            self._open.clear()
            self._changed.notify_all()

    def task_folder(self, task_id: str) -> Path:
        """Folder of a task; ids come from ``Plan``, whose pattern allows no dots."""
        return self._folder / task_id.replace("/", "_")

    # ── a site's side; ``site`` is always the one that the certificate names ────────────────────────────────

    def next_plan(self, site: str, timeout_s: float) -> Plan | None:
        """The open plan of a site, waiting for one up to ``timeout_s``."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._plan_of(site) is not None, timeout_s)
            return self._plan_of(site)

    def _plan_of(self, site: str) -> Plan | None:
        return next((plan for plan, *_ in self._open.values() if plan.site == site), None)

    def is_open(self, site: str, task_id: str) -> bool:
        """Whether the task is one of this site and still wanted."""
        with self._changed:
            return task_id in self._open and self._open[task_id][0].site == site

    def state_of(self, site: str, task_id: str) -> tuple[PayloadReference, Path]:
        """The state of an open task, and its file.

        Raises:
            ProtocolError: the task is not open, not this site's, or has no state.
        """
        plan, path, _ = self._open_task(site, task_id)
        if plan.state is None or path is None:
            raise ProtocolError(f"site {site} asked for the state of a query, which has none")
        return plan.state, path

    def _open_task(self, site: str, task_id: str) -> Offer:
        with self._changed:
            if task_id not in self._open or self._open[task_id][0].site != site:
                raise ProtocolError(f"site {site} asked for a task that is not open for it")
            return self._open[task_id]

    def offset(self, site: str, task_id: str) -> int | None:
        """How many bytes of the task's update are held; None when the task has its verdict."""
        if self._ended_of(site, task_id) is not None:
            return None
        self._open_task(site, task_id)
        part = self.task_folder(task_id) / PART_FILE
        return part.stat().st_size if part.exists() else 0

    def receive(self, site: str, upload: Upload, chunks: Iterable[bytes]) -> Outcome:
        """Take an update in, check it, and give the verdict.

        A site that does not know whether its update arrived sends it again; it gets the first verdict.

        Raises:
            ProtocolError: the task is not this site's, or the bytes do not start where the spool ends.
            RestartUpload: a resumed upload does not match its digest.
            NotNow: quota or disk have no room, or an earlier upload of the task is still open; what is held stays.
        """
        ended = self._ended_of(site, upload.task_id)
        if ended is not None:
            return ended
        offer = self._open_task(site, upload.task_id)
        with self._changed:
            if upload.task_id in self._receiving:
                raise NotNow("an earlier upload of this update is still open at the coordinator")
            self._receiving.add(upload.task_id)
        try:
            self.task_folder(upload.task_id).mkdir(parents=True, exist_ok=True)
            return self._conclude(offer.plan, self._check(offer, upload, chunks))
        except OSError as error:
            if not is_full(error):
                raise
            reopen(self.task_folder(upload.task_id))
            raise NotNow("the coordinator's disk is full") from error
        finally:
            with self._changed:
                self._receiving.discard(upload.task_id)

    def fail(self, site: str, task_id: str, code: RefusalCode) -> None:
        """A site could not do its task, or will not do it now: then the task stays open, and it alone decides when."""
        if self._ended_of(site, task_id) is None:
            plan, *_ = self._open_task(site, task_id)
            if code in POSTPONED:
                (self.task_folder(task_id) / PART_FILE).unlink(missing_ok=True)
                return
            self._conclude(plan, Outcome(task_id=task_id, refusal=code.name))

    def _ended_of(self, site: str, task_id: str) -> Outcome | None:
        with self._changed:
            if task_id in self._open:
                return None
        if re.fullmatch(TASK_ID, task_id) is None or task_id.split("/")[3] != site:
            raise ProtocolError(f"site {site} named a task that is not its own")
        return self.outcome(task_id)

    def _check(self, offer: Offer, upload: Upload, chunks: Iterable[bytes]) -> Outcome:
        plan, decoded = offer.plan, None
        try:
            check_metrics(plan, upload.metrics)
            signed = upload.confirm(plan, upload)  # before a byte is taken in
            if plan.kind != "train":
                if upload.payload is not None:
                    raise Refused(RefusalCode.TENSOR_NAMES, "only training returns tensors")
            elif upload.payload is None:
                raise Refused(RefusalCode.MALFORMED_PAYLOAD, "a training visit returns tensors")
            else:
                decoded = self._take_in(offer, upload, upload.payload, chunks)
        except (Refused, PayloadError) as error:
            logger.warning("task %s: update refused: %s", plan.task_id, error)
            return Outcome(task_id=plan.task_id, refusal=error.code.name)
        return Outcome(
            task_id=plan.task_id,
            payload=upload.payload,
            decoded=decoded,
            metrics=dict(upload.metrics),
            signed=signed,
        )

    def _take_in(
        self, offer: Offer, upload: Upload, reference: PayloadReference, chunks: Iterable[bytes]
    ) -> PayloadReference | None:
        """Append, check and adopt; gives what was made of an encoded update."""
        plan = offer.plan
        size = payload_bytes(self._spec, plan.upload)
        if reference.size > size + MAX_OVERHEAD_BYTES:
            raise Refused(RefusalCode.TOO_LARGE, f"expected about {size} bytes, {reference.size} announced")
        folder = self.task_folder(plan.task_id)
        part = folder / PART_FILE
        with self._room.reserved(folder, bytes_of_task(self._spec, plan.upload)):
            digest = append(part, upload.offset, reference.size, chunks)
            if digest != reference.digest:
                part.unlink()
                if upload.offset or plan.task_id not in self._restarted:
                    self._restarted.add(plan.task_id)
                    raise RestartUpload
                raise Refused(RefusalCode.DIGEST_MISMATCH, "the bytes are not those that the header announced")
            with Payload(part) as payload:
                check_tensors(payload, expected_tensors(self._spec, plan.upload))
            decoded = None
            if plan.upload != "fp32":
                decoded = decode(part, folder / WHOLE_FILE, offer.base if plan.upload == "delta" else None)
            part.rename(folder / (WHOLE_FILE if decoded is None else SENT_FILE))
            fsync_folder(folder)
        return decoded

    def _conclude(self, plan: Plan, outcome: Outcome) -> Outcome:
        folder = self.task_folder(plan.task_id)
        with self._changed:
            if plan.task_id not in self._open:
                raise ProtocolError(f"task {plan.task_id} was withdrawn")
            write_whole(folder / "outcome.json", outcome.model_dump_json(indent=1))
            if outcome.refusal is not None:
                (folder / PART_FILE).unlink(missing_ok=True)
            del self._open[plan.task_id]
            self._changed.notify_all()
        return outcome
