"""The life of a running site: introduce itself, wait for a plan, do it, hand in, until the run is over."""

import errno
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.data.prepared import read_counts
from mammofed_shared.errors import ProtocolError, RefusalCode, RunCancelled, RunStopped
from mammofed_shared.exam import Split
from mammofed_shared.pki import Identity
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.flower import become_flower_task, plan_message, update_of
from mammofed_shared.protocol.payload import reference_of
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.protocol.wire import LONG_POLL_S, plan_from_wire
from mammofed_shared.revision import source_digest
from mammofed_site.allowed_numbers import is_allowed, told_progress
from mammofed_site.app import SITE_KEY, app, current_gate, current_monitor
from mammofed_site.audit import Audit
from mammofed_site.data_digest import data_digest
from mammofed_site.gate import Gate, HeldBack
from mammofed_site.hold import Hold, HoldWatch
from mammofed_site.in_hand import InHand
from mammofed_site.ledger import SiteLedger
from mammofed_site.link import Interrupted, Link, NotWanted
from mammofed_site.progress_bar import visit_shown
from mammofed_site.renewal import Renewal
from mammofed_site.retention import remove_finished_run, remove_large_files
from mammofed_site.visit import Monitor, VisitCancelled, VisitPaused, data_of, forget_result, visit_folder, warm_up

logger = logging.getLogger(__name__)

WAIT_FOR_DISK_S = 1.0
LONGEST_WAIT_FOR_DISK_S = 30.0
_MAY_PASS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE})
"""What may be wrong with a disk or a machine and be mended while the site waits."""
REPORT_EVERY_S = 1.0
"""How often a visit under way tells the coordinator how far it is."""
HELD_POLL_EVERY_S = 5.0
"""How often a site that holds still says that it is there."""
_STATE_OF = {"train": pb.TRAINING, "evaluate": pb.EVALUATING, "query": pb.COUNTING}
_HELD_STATE = {None: pb.READY, Hold.VETOED: pb.VETOED, Hold.OUT_OF_HOURS: pb.OUT_OF_HOURS}


class SiteClient:
    """One hospital in one run."""

    def __init__(self, settings: SiteSettings, identity: Identity) -> None:
        self._settings = settings
        self._audit = Audit(settings.folder)
        self._gate = Gate(settings.site, self._audit)
        self._ledger = SiteLedger(settings.folder, lambda: self._renewal.identity)
        self._link = Link(settings.site, settings.server, identity, self._gate)
        self._in_hand = InHand(settings)
        self._monitor = Monitor()
        self._watch = HoldWatch(settings, self._on_hold)
        self._context = Context(
            run_id=1,
            node_id=1,
            node_config={SITE_KEY: settings.model_dump_json()},
            state=RecordDict(),
            run_config={},
        )
        self._renewal = Renewal(settings, identity, self._link, self._audit)
        self._disk_wait_s = WAIT_FOR_DISK_S
        become_flower_task(node_id=1)

    def run(self) -> None:
        """Take part in the run until it is over.

        Raises:
            RunStopped, RunCancelled: it ended before its last turn.
            Unreachable: the coordinator refuses this site.
        """
        warm_up()
        self._watch.start()
        run = ""
        while True:
            try:
                if not run:
                    run = self._introduce()
                    logger.info("site %s takes part in run %s", self._settings.site, run)
                if self._turn(run):
                    return
            except Interrupted:
                self._link.go_on()

    def _turn(self, run: str) -> bool:
        """Ask once what is wanted, and do it; whether the run is finished.

        Raises:
            Interrupted: the site holds still from now on.
        """
        self._renewal.if_due()
        held = self._watch.now
        if held is Hold.VETOED:
            self._leave_off()
        reply = self._link.poll(pb.PollRequest(state=_HELD_STATE[held], wait_s=0 if held else LONG_POLL_S))
        if reply.run_state == pb.FINISHED:
            logger.info("run %s is finished", run)
            remove_finished_run(self._settings, run)
            return True
        if reply.run_state == pb.CANCELLED:
            raise RunCancelled(f"run {run} was cancelled by the lead")
        if reply.run_state == pb.STOPPED:
            raise RunStopped(f"run {run} was stopped: the coordinator's log says why; the lead can start it again")
        if held:  # nothing of a plan is looked at
            self._watch.wait_for_change(HELD_POLL_EVERY_S)
        elif reply.HasField("plan"):
            self._do(reply.plan)
        elif reply.run_state == pb.PAUSED:
            time.sleep(REPORT_EVERY_S)
        return False

    def close(self) -> None:
        """Let the connection go."""
        self._watch.stop()
        self._link.close()

    def _on_hold(self, hold: Hold) -> None:
        """The hospital holds still from now on; called by the watch, in its own thread."""
        stop = self._monitor.cancelled if hold is Hold.VETOED else self._monitor.paused
        stop.set()
        self._link.interrupt()

    def _leave_off(self) -> None:
        """The hospital has vetoed: nothing is left of the task in hand, here and at the coordinator."""
        task_id = self._in_hand.task_id()
        if task_id is None:
            return
        self._in_hand.destroy(task_id)
        self._fail(task_id, RefusalCode.VETOED)
        self._in_hand.let_go()

    def _fail(self, task_id: str, code: RefusalCode) -> None:
        try:
            self._link.fail(task_id, code)
        except (NotWanted, HeldBack) as error:  # it was withdrawn, or is no task of this site
            logger.info("task in hand: the coordinator does not hear of its end: %s", error)
            self._watch.wait_for_change(REPORT_EVERY_S)

    def _introduce(self) -> str:
        counts = [read_counts(self._settings.prepared_folder(item)) for item in self._settings.datasets]
        num_training, num_test = (sum(count[split] for count in counts) for split in (Split.TRAIN, Split.TEST))
        if (policy := self._watch.policy) is None or not is_allowed(policy, "num_exams"):
            num_training = num_test = 0  # the coordinator shows them, and needs them for nothing
        return self._link.hello(num_training, num_test, data_digest(self._settings), source_digest())

    def _do(self, wire: Any) -> None:
        try:
            plan = plan_from_wire(wire)
        except ProtocolError as error:
            logger.error("%s", error)
            self._fail(wire.task_id, RefusalCode.SETTINGS)
            return
        logger.info("round %d: %s, %d epoch(s)", plan.round, plan.kind, plan.epochs)
        started = time.monotonic()
        try:
            self._in_hand.take(plan.task_id)
            self._fetch_do_submit(plan)
            self._disk_wait_s = WAIT_FOR_DISK_S
        except OSError as error:
            self._wait_for_disk(plan, error)
        except NotWanted as error:
            logger.info("task %s is no longer wanted: %s", plan.task_id, error)
        except (VisitCancelled, VisitPaused, Interrupted) as stop:
            if isinstance(stop, VisitPaused | Interrupted) or self._watch.now is Hold.VETOED:
                self._held(plan)
                return
            self._audit.write("withdrawn", task=plan.task_id)
            logger.info("task %s was withdrawn", plan.task_id)
        except ProtocolError as error:
            logger.error("task %s: %s", plan.task_id, error)
            self._audit.write("failed", task=plan.task_id, code=RefusalCode.DIGEST_MISMATCH.name)
            self._fail(plan.task_id, RefusalCode.DIGEST_MISMATCH)
        except HeldBack as error:  # a fault of this software; the audit record has it already
            logger.error("task %s: %s", plan.task_id, error)
            forget_result(self._settings, plan.task_id)
            self._fail(plan.task_id, RefusalCode.POLICY)
        self._in_hand.let_go()
        logger.info("round %d: %s ended after %.1f s", plan.round, plan.kind, time.monotonic() - started)

    def _held(self, plan: Plan) -> None:
        """The site itself stopped a task: it stays in hand, and is gone on with or left off when that is known."""
        why = self._watch.now or Hold.OUT_OF_HOURS
        self._audit.write("stopped", task=plan.task_id, code=why.name, sent=self._gate.num_sent)
        logger.info("task %s was stopped: %s", plan.task_id, why.name)
        self._gate.close()
        self._link.go_on()

    def _fetch_do_submit(self, plan: Plan) -> None:
        folder = visit_folder(self._settings, plan.task_id)
        state = folder / "state.safetensors" if plan.state is not None else None
        monitor = self._monitor = Monitor()
        if self._watch.now is not None:  # since it was asked; from here on the watch sees this monitor
            raise Interrupted
        self._gate.close()
        token = current_monitor.set(monitor)
        gate_token = current_gate.set(self._gate)
        heartbeat = Heartbeat(self._link, plan, monitor, self._watch, self._renewal)
        try:
            heartbeat.start(pb.FETCHING)
            if state is not None:
                self._fetch(plan, state)
            heartbeat.state = _STATE_OF[plan.kind]
            with visit_shown(monitor, f"round {plan.round}: {plan.kind}"):
                reply = app(plan_message(plan, state, node_id=1), self._context)
            heartbeat.state = pb.SUBMITTING
            if reply.has_error():
                code = RefusalCode(reply.error.code)
                if code is RefusalCode.OUT_OF_HOURS:  # they ended a moment ago: nothing failed
                    self._watch.wait_for_change(REPORT_EVERY_S)
                    raise Interrupted
                if code is RefusalCode.DISK_FULL:  # a worker met it; somebody will make room
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._link.fail(plan.task_id, code)
                return
            update, path = update_of(reply)
            signed = self._ledger.state(plan, update, data_of(self._settings, plan.task_id))
            refused = self._link.submit(update, path, signed, self._ledger.keep_receipt)
        finally:
            heartbeat.stop()
            current_monitor.reset(token)
            current_gate.reset(gate_token)
        if refused is not None:
            logger.error("task %s: the coordinator refused the update: %s", plan.task_id, refused.name)
            self._audit.write("refused", task=plan.task_id, code=refused.name)
            forget_result(self._settings, plan.task_id)
            return
        self._audit.write("submitted", task=plan.task_id)
        remove_large_files(folder)

    def _wait_for_disk(self, plan: Plan, error: OSError) -> None:
        """Wait a little before the coordinator is asked for the plan again: all that is on disk is gone on from.

        Raises:
            OSError: ``error``, when waiting cannot mend it.
        """
        if error.errno not in _MAY_PASS:
            raise error
        logger.error(
            "task %s: a file could not be written (%s): make room in this site's folder, and see to its disk; trying "
            "again in %.0f s, and nothing is lost meanwhile",
            plan.task_id,
            error.strerror,
            self._disk_wait_s,
        )
        self._watch.wait_for_change(self._disk_wait_s)
        self._disk_wait_s = min(2 * self._disk_wait_s, LONGEST_WAIT_FOR_DISK_S)

    def _fetch(self, plan: Plan, state: Path) -> None:
        assert plan.state is not None, "there is something to fetch"
        if not state.exists() or reference_of(state) != plan.state:  # a new run may be called as an old one
            self._link.fetch(plan, state)
            self._audit.write("fetched", task=plan.task_id, digest=plan.state.digest, size=plan.state.size)


class Heartbeat:
    """Tells the coordinator how far a visit is, hears whether it is still wanted, and renews the certificate."""

    def __init__(self, link: Link, plan: Plan, monitor: Monitor, watch: HoldWatch, renewal: Renewal) -> None:
        self.state = pb.FETCHING
        self._watch = watch
        self._link = link
        self._plan = plan
        self._monitor = monitor
        self._renewal = renewal
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")

    def start(self, state: "pb.SiteState") -> None:
        """Begin to report."""
        self.state = state
        self._thread.start()

    def stop(self) -> None:
        """Report no more."""
        self._stopped.set()

    def _beat(self) -> None:
        while not self._stopped.wait(REPORT_EVERY_S):
            self._renewal.if_due()
            told = told_progress(self._monitor.progress, self._watch.policy)
            reply = self._link.poll_once(pb.PollRequest(state=self.state, task_id=self._plan.task_id, **told))
            if reply is not None and reply.cancel and self.state != pb.SUBMITTING:
                self._monitor.cancelled.set()
