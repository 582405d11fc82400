"""Runs over real mutual TLS whose sites state and sign what they send; nothing is trained, so one takes a second."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from flwr.app import Context, RecordDict

from federation import METRICS, SMALL_SPEC, small_state
from identities import Consortium
from mammofed_server.app import app as server_app
from mammofed_server.control import Control
from mammofed_server.entries import CERTIFICATES
from mammofed_server.grid import MailboxGrid
from mammofed_server.ledger import RunLedger
from mammofed_server.mailbox import Mailbox
from mammofed_server.notary import Notary
from mammofed_server.run_state import RunState
from mammofed_server.service import FederationService, start_server
from mammofed_server.sites import SiteBoard
from mammofed_server.trust import Trust
from mammofed_shared.errors import RefusalCode
from mammofed_shared.pki import Identity
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.encoding import decode, encode, encoded_names
from mammofed_shared.protocol.plan import PayloadReference, Plan, Update
from mammofed_shared.protocol.task_spec import TaskSpec
from mammofed_shared.protocol.wire import plan_from_wire
from mammofed_site.audit import Audit
from mammofed_site.ledger import SiteLedger
from mammofed_site.link import Link
from runs import begin_small_run, controls_of
from small_counts import TOLD

DATA = "d" * 64
LONGEST_S = 60.0

OnPlan: TypeAlias = Callable[[RunState, Plan], RefusalCode | None]
"""Called with each plan before it is done; a code: the visit fails with it."""


def do_all(run: RunState, plan: Plan) -> None:
    """Let every plan be done."""


@dataclass
class SignedRun:
    """A run's folder, and those of its sites."""

    run: RunState
    consortium: Consortium
    sites: dict[str, Path]

    @property
    def folder(self) -> Path:
        return self.run.folder

    def copy(self, folder: Path) -> "SignedRun":
        """The same somewhere else, to be damaged."""
        shutil.copytree(self.folder, folder / "server")
        sites = {name: Path(shutil.copytree(path, folder / name)) for name, path in self.sites.items()}
        return SignedRun(RunState.open(folder / "server"), self.consortium, sites)


class Hospital:
    """A site's thread: the real link and ledger, with updates out of nothing, which it keeps."""

    def __init__(self, folder: Path, site: str, identity: Identity, port: int, spec: TaskSpec = SMALL_SPEC) -> None:
        self._folder = folder
        self._spec = spec
        self._identity = identity
        self.link = Link(site, f"127.0.0.1:{port}", identity)
        self.ledger = SiteLedger(folder, lambda: self._identity)

    def live(self, run: RunState, on_plan: OnPlan = do_all) -> None:
        """Take part until the run is over; what goes wrong ends the run, too."""
        control = Control(run.folder)
        try:
            self._live(lambda plan: on_plan(run, plan))
        except BaseException:
            control.say("cancel")
            raise

    def next_plan(self) -> Plan | None:
        """What the coordinator wants now, if it wants anything."""
        reply = self.link.poll(pb.PollRequest(state=pb.READY, wait_s=1))
        return plan_from_wire(reply.plan) if reply.HasField("plan") else None

    def _live(self, on_plan: Callable[[Plan], RefusalCode | None]) -> None:
        self.link.hello(10, 5)
        while (reply := self.link.poll(pb.PollRequest(state=pb.READY, wait_s=1))).run_state == pb.RUNNING:
            if reply.HasField("plan"):
                plan = plan_from_wire(reply.plan)
                code = on_plan(plan)
                if code is not None:
                    self.link.fail(plan.task_id, code)
                else:
                    self.do(plan)

    def do(self, plan: Plan) -> None:
        update, path = self.update(plan)
        Audit(self._folder).write("released", task=plan.task_id)
        self.link.gate.open_for(update, path)
        signed = self.ledger.state(plan, update, DATA)
        assert self.link.submit(update, path, signed, self.ledger.keep_receipt) is None

    def update(self, plan: Plan) -> tuple[Update, Path | None]:
        if plan.kind == "query":
            return Update(task_id=plan.task_id, payload=None, metrics=dict(TOLD)), None
        if plan.kind == "evaluate":
            return Update(task_id=plan.task_id, payload=None, metrics={"num_exams": 5.0, "auroc/mass": 0.75}), None
        path = self._folder / f"update-{plan.visit}.safetensors"
        payload = small_state(path, float(plan.visit), **controls_of(self._spec, 0.25))
        if plan.upload != "fp32":
            payload = self._encoded(plan, path)
        metrics = {**METRICS, "num_exams": 10.0 + plan.visit, "duration_s": 1.5}
        return Update(task_id=plan.task_id, payload=payload, metrics=metrics), path

    def _encoded(self, plan: Plan, path: Path) -> PayloadReference:
        """Encode an update in its place, against the state that the coordinator offers."""
        assert plan.state is not None, "training starts from a state"
        came, base = self._folder / "came.safetensors", self._folder / "base.safetensors"
        self.link.fetch(plan, came)
        if plan.download == "fp32":
            shutil.copyfile(came, base)
        else:
            decode(came, base)
        whole = path.rename(path.with_suffix(".whole"))
        names = encoded_names(self._spec, plan.upload)
        return encode(whole, path, names, base=base if plan.upload == "delta" else None)


@dataclass
class Coordination:
    """A coordinator whose sites can call, and its app."""

    run: RunState
    mailbox: Mailbox
    port: int
    _grid: MailboxGrid

    def run_app(self) -> None:
        config = {"folder": str(self.run.folder)}
        server_app(self._grid, Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config))


@contextmanager
def coordination(run: RunState, consortium: Consortium) -> Iterator[Coordination]:
    """As ``serve`` does it, without status and tracking."""
    settings = run.record.settings
    renewal = consortium.authority / "renewal"
    trust = Trust(consortium.server_identity(), consortium.server, renewal)
    notary = Notary(run.folder / CERTIFICATES, consortium.name, lambda: trust.identity)
    run.ledger = RunLedger(run, notary.signer)
    mailbox = Mailbox(run.folder / "spool", run.record.spec)
    board = SiteBoard(settings.sites, newcomers=lambda: run.members().asked_to("join"))
    service = FederationService(
        run=settings.run,
        consortium=consortium.name,
        mailbox=mailbox,
        board=board,
        run_state=lambda: pb.FINISHED if run.ending() else pb.RUNNING,
        renewal_folder=renewal,
        trust=trust,
        notary=notary,
    )
    server, port = start_server(service, trust, "127.0.0.1:0", len(settings.sites))
    grid = MailboxGrid(settings.sites, mailbox, Control(run.folder), board, run.members())
    grid.ledger = run.ledger
    try:
        yield Coordination(run, mailbox, port, grid)
    finally:
        mailbox.close()
        server.stop(grace=1).wait()


def make_signed_run(
    folder: Path,
    consortium: Consortium,
    *,
    spec: TaskSpec = SMALL_SPEC,
    newcomers: tuple[str, ...] = (),
    on_plan: OnPlan = do_all,
    **settings: Any,
) -> SignedRun:
    """Begin and finish a run of `central` and `mayo`, evaluated after each turn."""
    run = begin_small_run(folder / "server", spec, **{"evaluation": {"when": "visit"}, **settings})
    sites = {name: folder / name for name in (*run.record.settings.sites, *newcomers)}
    for name in newcomers:
        run.members().ask(name, "join")
    with coordination(run, consortium) as coordinator:
        hospitals = [
            Hospital(path, name, consortium.site_identity(name), coordinator.port, spec) for name, path in sites.items()
        ]
        threads = [threading.Thread(target=hospital.live, args=(run, on_plan), daemon=True) for hospital in hospitals]
        for thread in threads:
            thread.start()
        coordinator.run_app()
        for thread in threads:
            thread.join(LONGEST_S)
        for hospital in hospitals:
            hospital.link.close()
    return SignedRun(run, consortium, sites)
