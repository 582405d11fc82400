"""Runs a coordinator from beginning to end: state, mailbox, gRPC, strategy, tracking."""

import fcntl
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from flwr.app import Context, RecordDict

from mammofed_server.app import app
from mammofed_server.control import Control
from mammofed_server.entries import CERTIFICATES
from mammofed_server.farewell import all_are_told, wait_until_stop_is_told, wait_until_told
from mammofed_server.grid import MailboxGrid
from mammofed_server.initial import MakeState, begin_run, make_in_process_of_its_own
from mammofed_server.ledger import RunLedger
from mammofed_server.limits import raise_file_limit
from mammofed_server.mailbox import Mailbox
from mammofed_server.notary import Notary
from mammofed_server.run_state import RunState
from mammofed_server.service import FederationService, start_server
from mammofed_server.sites import SiteBoard
from mammofed_server.spool import bytes_of_task, spool_quota
from mammofed_server.status import RunWord, StatusWriter
from mammofed_server.trust import Trust
from mammofed_shared.config.run import RunSettings
from mammofed_shared.errors import ConfigurationError, RunCancelled, RunStopped, StateError
from mammofed_shared.files import remove_halves
from mammofed_shared.pki import load_identity
from mammofed_shared.protocol import federation_pb2 as pb

logger = logging.getLogger(__name__)


def serve(settings: RunSettings) -> RunState:
    """Run or resume the run, and give its folder when the last turn is committed.

    Raises:
        IdentityError: the coordinator's own certificate cannot serve.
        StateError: another coordinator uses the folder, or the run in it is another one or already cancelled.
        RunStopped, RunCancelled: it ended before.
    """
    identity = load_identity(settings.server.identity, settings.consortium, "coordinator", datetime.now(UTC))
    with only_coordinator(settings.server.folder):
        run = open_or_begin(settings)
        renewal_folder = settings.server.identity.parent / "renewal"
        trust = Trust(identity, settings.server.identity, renewal_folder)
        notary = Notary(run.folder / CERTIFICATES, settings.consortium, lambda: trust.identity)
        run.ledger = RunLedger(run, notary.signer)
        ending = run.ending()
        members = run.members()
        if ending is not None and all_are_told(run.folder, members.of_round(settings.schedule.rounds)):
            _check_not_cancelled(run)
            logger.info("run %s is finished; its last checkpoint is turn %d", settings.run, run.last_turn())
            return run
        remove_halves(run.folder)
        run.verify_last()
        mailbox = Mailbox(run.folder / "spool", run.record.spec, quota=_spool_quota(settings, run))
        board = SiteBoard(members.ever, newcomers=lambda: members.asked_to("join"))
        writer = StatusWriter(run, board)
        control = Control(run.folder)
        service = FederationService(
            run=settings.run,
            consortium=settings.consortium,
            mailbox=mailbox,
            board=board,
            run_state=lambda: _run_state(writer, control),
            renewal_folder=renewal_folder,
            trust=trust,
            notary=notary,
        )
        raise_file_limit()
        try:
            server, port = start_server(service, trust, settings.server.listen, len(settings.sites))
        except RuntimeError as error:
            raise ConfigurationError(f"server.listen: cannot listen on {settings.server.listen}: {error}") from error
        logger.info("run %s: settings %s; a hospital's policy can name them", settings.run, run.record.settings.digest)
        logger.info("run %s: listening on port %d for %s", settings.run, port, ", ".join(settings.sites))
        tracker = start_tracker(run.folder) if settings.tracking.enabled else None
        word: RunWord = "interrupted"
        try:
            writer.word = "running"
            writer.start()
            if ending is None:
                grid = MailboxGrid(members.ever, mailbox, control, board, members)
                grid.ledger = run.ledger
                _run_app(grid, run.folder)
            word = ending or "finished"
        except RunStopped:
            word = "stopped"
            raise
        except RunCancelled:
            run.end("cancelled")
            word = "cancelled"
            raise
        finally:
            writer.word = word
            mailbox.close()
            if word == "stopped":
                wait_until_stop_is_told(board)
            elif word != "interrupted":
                wait_until_told(run.folder, board, members.of_round(settings.schedule.rounds))
            server.stop(grace=1).wait()
            if tracker is not None:
                finish_tracker(tracker, run.folder)
            writer.stop(word)
    _check_not_cancelled(run)
    return run


def _check_not_cancelled(run: RunState) -> None:
    if run.ending() == "cancelled":
        raise StateError(f"run {run.record.settings.run!r} was cancelled; give a new run another `server.folder`")


def open_or_begin(settings: RunSettings, make_state: MakeState = make_in_process_of_its_own) -> RunState:
    """The run of these settings: resumed when its folder holds it, begun otherwise."""
    folder = settings.server.folder
    if RunState.exists(folder):
        run = RunState.open(folder, settings)
        run.keep_as(settings.checkpoints)
        return run
    logger.info("run %s: making the first state", settings.run)
    return begin_run(settings, make_state)


def _run_app(grid: MailboxGrid, folder: Path) -> None:
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={"folder": str(folder)})
    app(grid, context)


def _spool_quota(settings: RunSettings, run: RunState) -> int | None:
    num_updates = max(len(turn.visits) for turn in run.schedule().turns)
    update_bytes = bytes_of_task(run.record.spec, settings.transfer.upload)
    return spool_quota(settings.server.spool_quota_gb, num_updates, update_bytes)


def _run_state(writer: StatusWriter, control: Control) -> pb.RunState:
    over = {"finished": pb.FINISHED, "cancelled": pb.CANCELLED, "stopped": pb.STOPPED}
    if writer.word in over:
        return over[writer.word]
    paused = control.word() == "pause"
    if writer.word in ("running", "paused"):
        writer.word = "paused" if paused else "running"
    return pb.PAUSED if paused else pb.RUNNING


@contextmanager
def only_coordinator(folder: Path) -> Iterator[None]:
    """Hold the run's folder; two coordinators on one folder would tear it.

    Raises:
        StateError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateError(f"{folder}: a coordinator is already running here") from error
        yield


def start_tracker(folder: Path) -> subprocess.Popen[bytes]:
    """Start the process that writes the run's numbers to MLflow as they are committed."""
    command = [sys.executable, "-m", "mammofed_server.tracking", str(folder)]
    # A session of its own: Ctrl-C is for the coordinator, which then closes the tracker's input and waits for it.
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def finish_tracker(tracker: subprocess.Popen[bytes], folder: Path) -> None:
    """Let the tracker write what is left, and wait for it; one that died is started once more, and catches up."""
    if _ends_badly(tracker) and _ends_badly(start_tracker(folder)):
        logger.error("the tracker ended with an error; see tracking.log; the run itself is safe")


def _ends_badly(tracker: subprocess.Popen[bytes]) -> bool:
    assert tracker.stdin is not None
    tracker.stdin.close()
    return tracker.wait() != 0
