"""The coordinator's ledger: each commit has one line, in every order of kills, and plans name the same lines again."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from identities import Consortium, make_consortium
from mammofed_server import ledger as ledger_module
from mammofed_server.control import Control
from mammofed_server.entries import key_of
from mammofed_server.ledger import RunLedger
from mammofed_server.plans import PlanMaker
from mammofed_server.run_state import QualityRecord, RunState
from mammofed_server.verify import verify_run
from mammofed_shared import checkpoint
from mammofed_shared.ledger import FILE, Ledger, Line
from mammofed_shared.protocol.plan import Plan
from mammofed_site.link import NotWanted
from runs import begin_small_run
from signed_runs import LONGEST_S, Hospital, coordination
from small_counts import TOLD


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return make_consortium(tmp_path_factory.mktemp("consortium"), ["central", "mayo"])


def _lines(run: RunState) -> list[Line]:
    return Ledger(run.folder / FILE).lines


def _keys(run: RunState) -> list[tuple[str, int]]:
    return [key_of(line.entry) for line in _lines(run)]


class Killed(BaseException):
    """In place of SIGKILL: nothing of ours catches it."""


class Federation:
    """A run whose coordinator is killed and started again; its sites live on."""

    def __init__(self, folder: Path, consortium: Consortium, **settings: Any) -> None:
        self.run = begin_small_run(folder / "server", **{"evaluation": {"when": "visit"}, **settings})
        self._consortium = consortium
        self._folder = folder
        self.plans: list[Plan] = []

    def coordinate(self) -> None:
        """Run what is left, as a coordinator that was started anew."""
        self.run = RunState.open(self.run.folder)
        stop = threading.Event()
        with coordination(self.run, self._consortium) as coordinator:
            hospitals = [self._hospital(site, coordinator.port) for site in self.run.record.settings.sites]
            threads = [threading.Thread(target=self._live, args=(item, stop), daemon=True) for item in hospitals]
            for thread in threads:
                thread.start()
            try:
                coordinator.run_app()
            finally:
                stop.set()
                coordinator.mailbox.close()
                for thread in threads:
                    thread.join(LONGEST_S)
                for hospital in hospitals:
                    hospital.link.close()

    def _hospital(self, site: str, port: int) -> Hospital:
        return Hospital(self._folder / site, site, self._consortium.site_identity(site), port)

    def _live(self, hospital: Hospital, stop: threading.Event) -> None:
        while not stop.is_set():
            plan = hospital.next_plan()
            if plan is None:
                continue
            self.plans.append(plan)
            try:
                hospital.do(plan)
            except NotWanted:  # the coordinator was killed meanwhile
                assert stop.wait(LONGEST_S)
            except BaseException:  # else the coordinator would wait for this site
                Control(self.run.folder).say("cancel")
                raise


FINISHED = [
    ("begun", 0),
    ("asked", 2),
    ("evaluated", 0),
    ("members", 1),
    ("turn", 1),
    ("evaluated", 1),
    ("turn", 2),
    ("evaluated", 2),
    ("ended", 0),
]


@pytest.mark.parametrize(
    ("owner", "name", "number"),
    [
        pytest.param(ledger_module, "entry_of", 1, id="before its first line"),
        pytest.param(ledger_module, "entry_of", 5, id="a turn is committed and has no line"),
        pytest.param(ledger_module, "entry_of", 6, id="an evaluation is committed and has no line"),
        pytest.param(ledger_module, "entry_of", 9, id="the run has ended and that has no line"),
        pytest.param(checkpoint, "fsync_folder", 1, id="a checkpoint was renamed a moment ago"),
        pytest.param(checkpoint, "seal_file", 1, id="a checkpoint is being sealed"),
    ],
)
def test_a_killed_coordinator_leaves_no_line_out_and_doubles_none(
    tmp_path: Path, consortium: Consortium, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int
) -> None:
    federation = Federation(tmp_path, consortium, schedule={"kind": "alternating", "rounds": 1})
    original, calls = getattr(owner, name), iter(range(1, 1000))

    def die(*args: Any, **named: Any) -> Any:
        if next(calls) == number:
            raise Killed
        return original(*args, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, die)
        with pytest.raises(Killed):
            federation.coordinate()
    federation.coordinate()
    assert _keys(federation.run) == FINISHED
    report = verify_run(federation.run.folder, consortium.root_fingerprint)
    assert (report.verdict, report.findings) == ("whole", [])
    assert [item.num_visits for item in report.contributors] == [1, 1]
    for site in ("central", "mayo"):
        report = verify_run(federation.run.folder, site_ledgers=[tmp_path / site / FILE])
        assert (report.verdict, report.findings) == ("whole", [])


def test_a_plan_names_the_line_of_its_state_and_is_the_same_after_a_restart(
    tmp_path: Path, consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation(tmp_path, consortium, schedule={"kind": "alternating", "rounds": 1})
    original = RunState.commit

    def die(self: RunState, turn: int, *args: Any, **named: Any) -> Any:
        if turn == 2:
            raise Killed
        return original(self, turn, *args, **named)

    with monkeypatch.context() as patched:
        patched.setattr(RunState, "commit", die)
        with pytest.raises(Killed):
            federation.coordinate()
    run = RunState.open(federation.run.folder)
    run.ledger = RunLedger(run)
    maker, turns = PlanMaker(run, run.schedule()), run.schedule().turns
    again = maker.training(turns[1], turns[1].visits[0], run.manifest(1))
    assert again in federation.plans
    digests = {key_of(line.entry): line.digest for line in _lines(run)}
    heads = {(plan.kind, plan.visit): plan.ledger_head for plan in federation.plans}
    assert heads[("query", 0)] == heads[("evaluate", 0)] == heads[("train", 1)] == digests["begun", 0]
    assert heads[("evaluate", 1)] == heads[("train", 2)] == digests["turn", 1]


def test_a_run_that_an_earlier_version_began_gets_its_lines_when_it_is_opened(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path)
    run.commit_quality(QualityRecord(counts={"mayo": TOLD}))
    run.end("cancelled")
    assert not (tmp_path / FILE).exists()
    RunLedger(run)
    assert _keys(run) == [("begun", 0), ("asked", 1), ("ended", 0)]
    before = (tmp_path / FILE).read_bytes()
    RunLedger(run)
    assert (tmp_path / FILE).read_bytes() == before


def test_what_the_sites_hold_is_entered_again_when_a_newcomer_has_told(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path)
    run.ledger = RunLedger(run)
    for counts in ({"mayo": TOLD}, {"mayo": TOLD, "emory": TOLD}):
        run.commit_quality(QualityRecord(counts=counts))
    members = run.members()
    members.settle(1, ["emory"])
    run.enter()
    assert _keys(run) == [("begun", 0), ("asked", 1), ("asked", 2), ("members", 1)]
    assert _lines(run)[-1].entry["members"] == ["central", "mayo", "emory"]
    assert verify_run(tmp_path).verdict == "whole", "the last line that names a file counts"


def test_lines_hold_digests_and_names_and_no_path_of_the_coordinator(tmp_path: Path, consortium: Consortium) -> None:
    federation = Federation(tmp_path, consortium, schedule={"kind": "fedavg", "rounds": 1})
    federation.coordinate()
    text = (federation.run.folder / FILE).read_text()
    assert str(tmp_path) not in text
    entry = next(line.entry for line in _lines(federation.run) if line.entry["kind"] == "turn")
    assert (entry["strategy"], [item["weight"] for item in entry["contributions"]]) == ("fedavg", [11.0, 12.0])
    assert json.dumps(entry["failures"]) == "[]"


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level("CRITICAL")
    yield
