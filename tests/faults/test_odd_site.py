"""A site that sends twice, late, stale, out of order: a real coordinator counts each contribution once.

The sites here speak through their own ``Link`` to a real `fl-server`; nothing is trained: the model is three tensors.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from federation import METRICS, OpenGate, small_state
from identities import Consortium, make_consortium
from mammofed_server.run_state import RunState
from mammofed_shared.errors import RefusalCode
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.protocol.plan import Plan, Update
from mammofed_shared.protocol.statement import Signed, statement_to_wire
from mammofed_shared.protocol.wire import plan_from_wire
from mammofed_site.ledger import SiteLedger
from mammofed_site.link import Link, NotWanted
from runs import begin_small_run
from small_counts import TOLD
from whole_run import SITES, free_port

LONGEST_S = 60


class OddSite:
    """A site that does what a test says, call by call."""

    def __init__(self, name: str, consortium: Consortium, port: int, folder: Path) -> None:
        self.name = name
        identity = consortium.site_identity(name)
        self.link = Link(name, f"127.0.0.1:{port}", identity, OpenGate(name))
        self._folder = folder / name
        self._folder.mkdir()
        self._ledger = SiteLedger(self._folder, lambda: identity)

    def plan(self) -> Plan:
        """The plan that this site has to do next; it is waited for."""
        while True:
            reply = self.link.poll(pb.PollRequest(state=pb.READY, wait_s=5))
            if reply.HasField("plan"):
                return plan_from_wire(reply.plan)

    def begin(self) -> None:
        """Introduce itself, and tell its counts."""
        self.link.hello(8, 6)
        plan = self.plan()
        update = Update(task_id=plan.task_id, payload=None, metrics=TOLD)
        signed = self._ledger.state(plan, update, "0" * 64)
        assert self.link.submit(update, None, signed) is None

    def update(self, plan: Plan, value: float, **metrics: float) -> tuple[Update, Path, Signed]:
        """An update whose weights are all ``value``, its file, and this site's statement."""
        path = self._folder / f"{plan.visit}-{value}.safetensors"
        made = Update(task_id=plan.task_id, payload=small_state(path, value), metrics=METRICS | metrics)
        signed = self._ledger.state(plan, made, "0" * 64)
        return made, path, signed

    def hear_the_end(self) -> None:
        """Ask until the run is over."""
        while self.link.poll(pb.PollRequest(state=pb.READY, wait_s=5)).run_state != pb.FINISHED:
            pass


class Federation:
    """A coordinator's process, and two odd sites."""

    def __init__(self, folder: Path, consortium: Consortium, schedule: str) -> None:
        self.folder = folder / "server"
        port = free_port()
        server = {"folder": str(self.folder), "identity": str(consortium.server), "listen": f"127.0.0.1:{port}"}
        run = begin_small_run(self.folder, schedule={"kind": schedule, "rounds": 2}, server=server)
        settings = folder / "run.yaml"
        settings.write_text(yaml.safe_dump(run.record.settings.model_dump(mode="json")))
        command = [sys.executable, "-m", "mammofed_server.cli", "--config", str(settings)]
        self.out = folder / "server.out"
        with self.out.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self.central, self.mayo = (OddSite(site, consortium, port, folder) for site in SITES)

    def begin(self) -> None:
        """Both sites introduce themselves."""
        for site in (self.central, self.mayo):
            site.begin()

    def committed(self, turn: int) -> RunState:
        """The run, once this turn is committed: the site whose turn comes next is asked to say so."""
        run = RunState.open(self.folder)
        while run.last_turn() < turn:
            self.central.link.poll(pb.PollRequest(state=pb.READY, wait_s=1))
        return run

    def finish(self) -> RunState:
        """Let both sites hear the end, and the coordinator end."""
        for site in (self.central, self.mayo):
            site.hear_the_end()
        assert self.process.wait(LONGEST_S) == 0, self.out.read_text()
        return RunState.open(self.folder)

    def close(self) -> None:
        for site in (self.central, self.mayo):
            site.link.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return make_consortium(tmp_path_factory.mktemp("consortium"), list(SITES))


@pytest.fixture
def schedule(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "alternating"))


@pytest.fixture
def federation(tmp_path: Path, consortium: Consortium, schedule: str) -> Iterator[Federation]:
    made = Federation(tmp_path, consortium, schedule)
    try:
        made.begin()
        yield made
    finally:
        made.close()


def weights(run: RunState, turn: int) -> float:
    with Payload(run.state_path(turn)) as state:
        return float(state["layer.weight"][0, 0])


def counted(run: RunState) -> list[list[str]]:
    return [[item.task_id for item in run.manifest(turn).contributions] for turn in range(1, run.last_turn() + 1)]


def test_an_update_that_comes_twice_late_or_stale_counts_once(federation: Federation) -> None:
    central, mayo = federation.central, federation.mayo
    first = central.plan()
    update = central.update(first, 2.0)

    assert central.link.submit(*update) is None
    mayos = mayo.plan()  # central's turn is committed by now
    for _ in range(2):  # a duplicate, late: its turn is over
        with pytest.raises(NotWanted, match="not open"):
            central.link.submit(*update)
    with pytest.raises(NotWanted, match="not open"):  # the same, as something else
        central.link.submit(*central.update(first, 9.0))
    with pytest.raises(NotWanted):  # or as a failure
        central.link.fail(first.task_id, RefusalCode.WORKER_DIED)

    assert weights(RunState.open(federation.folder), 1) == 2.0
    for site, plan, value in ((mayo, mayos, 3.0), (central, None, 4.0), (mayo, None, 5.0)):
        assert site.link.submit(*site.update(plan or site.plan(), value)) is None
    run = federation.finish()
    assert [weights(run, turn) for turn in range(5)] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert counted(run) == [
        ["test/r0001/v00001/central/train"],
        ["test/r0001/v00002/mayo/train"],
        ["test/r0002/v00003/central/train"],
        ["test/r0002/v00004/mayo/train"],
    ]


@pytest.mark.parametrize("schedule", ["fedavg"], indirect=True)
def test_in_fedavg_neither_repetition_nor_order_of_arrival_matters(federation: Federation) -> None:
    central, mayo = federation.central, federation.mayo
    for value in (2.0, 6.0):
        plan, mayos = central.plan(), mayo.plan()
        late = mayo.update(mayos, value + 3.0, num_exams=30.0)
        assert mayo.link.submit(*late) is None  # the last first
        assert mayo.link.submit(*late) is None  # a repetition gets the first verdict
        mayo.link.fail(mayos.task_id, RefusalCode.WORKER_DIED)  # and nothing that comes later changes it
        assert mayo.link.submit(*mayo.update(mayos, 99.0)) is None
        assert central.link.submit(*central.update(plan, value)) is None

    run = federation.finish()
    assert [weights(run, turn) for turn in range(3)] == [1.0, (2 + 3 * 5) / 4, (6 + 3 * 9) / 4]
    assert all(sorted(item.split("/")[3] for item in ids) == sorted(SITES) for ids in counted(run))


def test_halves_out_of_order_foreign_tasks_and_two_uploads_at_once_change_nothing(federation: Federation) -> None:
    central, mayo = federation.central, federation.mayo
    plan = central.plan()
    update = central.update(plan, 2.0)

    with pytest.raises(NotWanted, match="begins at byte"):  # the second half before the first
        central.link._patiently(lambda: central.link._upload(_parts(*update, half=1)))
    with pytest.raises(NotWanted, match="not open for it"):  # another site's task
        mayo.link.submit(*mayo.update(plan, 7.0))
    with pytest.raises(NotWanted, match=r"not its own|not open"):
        mayo.link.fail(plan.task_id, RefusalCode.WORKER_DIED)
    assert central.link._calls["Offset"](pb.OffsetRequest(task_id=plan.task_id)).offset == 0

    hold, released = threading.Event(), threading.Event()
    calls = ThreadPoolExecutor(2)
    slow = calls.submit(central.link._upload, _held(*update, hold, released))
    assert hold.wait(LONGEST_S)
    while True:  # until the coordinator has its first half
        if central.link._calls["Offset"](pb.OffsetRequest(task_id=plan.task_id)).offset:
            break
    second = calls.submit(central.link.submit, *central.update(plan, 9.0))  # is told to wait for the first
    with pytest.raises(grpc.RpcError, match=r"still open|RESOURCE_EXHAUSTED"):
        central.link._upload(_parts(*central.update(plan, 8.0), half=0))
    released.set()
    assert slow.result(LONGEST_S).accepted
    with suppress(NotWanted):  # if its turn is committed by now; else it gets the first verdict
        assert second.result(LONGEST_S) is None
    calls.shutdown()

    assert weights(federation.committed(1), 1) == 2.0


def _parts(update: Update, path: Path, signed: Signed, half: int) -> Iterator[Any]:
    assert update.payload is not None
    content = path.read_bytes()
    middle = len(content) // 2
    statement = statement_to_wire(signed)
    header = pb.SubmitHeader(task_id=update.task_id, metrics=update.metrics, offset=half * middle, statement=statement)
    header.payload.digest, header.payload.size = update.payload.digest, update.payload.size
    yield pb.SubmitPart(header=header)
    yield pb.SubmitPart(data=content[middle:] if half else content[:middle])


def _held(
    update: Update, path: Path, signed: Signed, hold: threading.Event, released: threading.Event
) -> Iterator[Any]:
    yield from _parts(update, path, signed, half=0)
    hold.set()
    assert released.wait(LONGEST_S)
    content = path.read_bytes()
    yield pb.SubmitPart(data=content[len(content) // 2 :])
