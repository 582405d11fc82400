"""A dead site is waited for, skipped or replaced as the run says; it rejoins by itself. Nothing is trained here."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pytest
from flwr.app import Context, RecordDict

from federation import METRICS, SMALL_SPEC, small_state
from mammofed_server.app import app as server_app
from mammofed_server.control import Control
from mammofed_server.grid import MailboxGrid
from mammofed_server.mailbox import Mailbox, Upload
from mammofed_server.run_state import RunState
from mammofed_server.sites import Missing, SiteBoard
from mammofed_shared.errors import RefusalCode, RunStopped
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.plan import Plan
from runs import begin_small_run
from small_counts import TOLD

A_WHILE_S = 0.7
LONGEST_S = 60.0


Act = Literal["do", "die", "veto", "fail"]


def _do(plan: Plan) -> Act:
    return "do"


class Hospital:
    """A site's thread: polls, and does with a plan as ``act`` says; once dead it says nothing until it is woken."""

    def __init__(self, name: str, mailbox: Mailbox, board: SiteBoard, folder: Path) -> None:
        self.name = name
        self.asked: list[str] = []
        self.act: Callable[[Plan], Act] = _do
        self.is_dead = threading.Event()
        self.is_vetoed = threading.Event()
        self._mailbox, self._board, self._folder = mailbox, board, folder

    def live(self, until: threading.Event) -> None:
        while not until.wait(0.01):
            if self.is_dead.is_set() or self.name not in self._board:  # the coordinator refuses who is not of the run
                continue
            is_vetoed = self.is_vetoed.is_set()
            self._board.polled(self.name, pb.PollRequest(state=pb.VETOED if is_vetoed else pb.READY), "")
            plan = None if is_vetoed else self._mailbox.next_plan(self.name, 0)
            if plan is not None:
                self._take(plan)

    def _take(self, plan: Plan) -> None:
        act = self.act(plan)
        if act == "die":
            self.is_dead.set()
        elif act == "veto":
            self.is_vetoed.set()
            self._mailbox.fail(self.name, plan.task_id, RefusalCode.VETOED)
        elif act == "fail":
            self._mailbox.fail(self.name, plan.task_id, RefusalCode.OUT_OF_MEMORY)
        else:
            self.hand_in(plan)

    def hand_in(self, plan: Plan) -> str | None:
        """Give an update to the coordinator; gives the code if it is refused."""
        self.asked.append(plan.task_id)
        if plan.kind == "query":
            upload, chunks = Upload(plan.task_id, None, TOLD, 0), []
        else:
            path = self._folder / f"{self.name}.safetensors"
            upload = Upload(plan.task_id, small_state(path, float(plan.visit)), METRICS, 0)
            chunks = [path.read_bytes()]
        return self._mailbox.receive(self.name, upload, iter(chunks)).refusal


class Board(SiteBoard):
    """A board on which a dead hospital is silent at once, so that no test hangs on how fast this machine is."""

    hospitals: Mapping[str, Hospital] = MappingProxyType({})

    def missing(self, site: str) -> Missing:
        return "silent" if self.hospitals[site].is_dead.is_set() else super().missing(site)


class Federation:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.run = begin_small_run(folder / "server", **settings)
        names = self.run.record.settings.sites
        self.mailbox = Mailbox(self.run.folder / "spool", SMALL_SPEC)
        self.board = Board(names, newcomers=lambda: self.run.members().asked_to("join"))
        self.hospitals = {name: Hospital(name, self.mailbox, self.board, folder) for name in (*names, "later")}
        self.board.hospitals = self.hospitals
        self._grid = MailboxGrid(names, self.mailbox, Control(self.run.folder), self.board, self.run.members())

    @contextmanager
    def alive(self) -> Iterator[None]:
        """All hospitals live meanwhile."""
        over = threading.Event()
        threads = [threading.Thread(target=item.live, args=(over,), daemon=True) for item in self.hospitals.values()]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join(LONGEST_S)

    def coordinate(self) -> RunState:
        """Run the run to its end."""
        config = {"folder": str(self.run.folder)}
        server_app(self._grid, Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config))
        return self.run


def _codes(run: RunState, turn: int) -> list[tuple[str, str]]:
    return [(item.site, item.code) for item in run.manifest(turn).failures]


def _at(round_number: int, act: Act) -> Callable[[Plan], Act]:
    """Act so on the training visits of one round."""
    return lambda plan: act if plan.kind == "train" and plan.round == round_number else "do"


def _wake_in_round(sleeper: threading.Event, round_number: int) -> Callable[[Plan], Act]:
    """Do everything, and wake another hospital when this one comes to a round."""

    def act(plan: Plan) -> Act:
        if plan.round == round_number:
            sleeper.clear()
        return "do"

    return act


@pytest.mark.parametrize("kind", ["alternating", "fedavg"])
def test_a_dead_site_is_skipped_and_rejoins_by_itself(tmp_path: Path, kind: str) -> None:
    federation = Federation(tmp_path, schedule={"kind": kind, "rounds": 3}, on_absence="skip", quorum=1)
    mayo = federation.hospitals["mayo"]
    mayo.act = _at(1, "die")
    federation.hospitals["central"].act = _wake_in_round(mayo.is_dead, 2)
    with federation.alive():
        run = federation.coordinate()
    assert run.ending() == "finished"
    last = run.manifest(run.last_turn())
    skipped = [(item.site, item.code, item.task_id.split("/")[1]) for item in last.skipped]
    assert skipped[0] == ("mayo", "ABSENT", "r0001") and len(skipped) <= 2, "round 2 may begin before it is back"
    rounds_of_mayo = {item.split("/")[1] for item in mayo.asked if item.endswith("train")}
    assert rounds_of_mayo == {"r0001", "r0002", "r0003"} - {round_number for _, _, round_number in skipped}


def test_who_comes_back_with_a_visit_that_was_given_up_hears_so(tmp_path: Path) -> None:
    federation = Federation(tmp_path, on_absence="skip", quorum=1, schedule={"kind": "fedavg", "rounds": 1})
    central, mayo = federation.hospitals["central"], federation.hospitals["mayo"]
    plans: list[Plan] = []
    answers: list[str | None] = []

    def keep_and_die(plan: Plan) -> Act:
        if plan.kind != "train":
            return "do"
        plans.append(plan)
        return "die"

    def wait_until_it_is_given_up(plan: Plan) -> Act:
        if plan.kind == "train":
            assert mayo.is_dead.wait(LONGEST_S)
            while federation.mailbox.is_open("mayo", plans[0].task_id):
                federation.board.heard("central")
                threading.Event().wait(0.02)
            answers.append(mayo.hand_in(plans[0]))
        return "do"

    mayo.act, central.act = keep_and_die, wait_until_it_is_given_up
    with federation.alive():
        run = federation.coordinate()
    assert answers == ["ABSENT"]
    assert [item.site for item in run.manifest(1).contributions] == ["central"], "what came too late does not count"


def test_with_wait_a_dead_site_is_waited_for(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    mayo = federation.hospitals["mayo"]
    mayo.act = _at(1, "die")
    found: list[tuple[str, int]] = []

    def wake() -> None:
        assert mayo.is_dead.wait(LONGEST_S)
        threading.Event().wait(A_WHILE_S)
        found.append((federation.board.missing("mayo"), federation.run.last_turn()))
        mayo.act = _do
        mayo.is_dead.clear()

    waker = threading.Thread(target=wake, daemon=True)
    waker.start()
    with federation.alive():
        run = federation.coordinate()
    waker.join(LONGEST_S)
    assert found == [("silent", 1)]
    assert run.ending() == "finished" and run.manifest(run.last_turn()).skipped == ()


@pytest.mark.parametrize("kind", ["alternating", "fedavg"])
def test_a_substitute_trains_in_the_place_of_a_dead_site(tmp_path: Path, kind: str) -> None:
    federation = Federation(
        tmp_path,
        sites=["central", "mayo", "emory"],
        schedule={"kind": kind, "rounds": 1, "order": ["central", "mayo"]},
        on_absence="fallback",
        substitutes={"mayo": "emory"},
    )
    federation.hospitals["mayo"].act = _at(1, "die")
    with federation.alive():
        run = federation.coordinate()
    assert run.ending() == "finished"
    turn = run.last_turn()
    assert "emory" in [item.site for item in run.manifest(turn).contributions]
    assert _codes(run, turn) == [("mayo", "ABSENT")]
    assert list((run.folder / "spool").iterdir()) == [], "nothing is left in the spool"


def test_the_quorum_is_kept_although_the_policy_is_skip(tmp_path: Path) -> None:
    federation = Federation(tmp_path, on_absence="skip", quorum=1, schedule={"kind": "fedavg", "rounds": 1})
    both = [federation.hospitals["central"], federation.hospitals["mayo"]]
    for hospital in both:
        hospital.act = _at(1, "die")

    def wake() -> None:
        assert all(item.is_dead.wait(LONGEST_S) for item in both)
        visits = [(item.name, f"test/r0001/v{number:05d}/{item.name}/train") for number, item in enumerate(both, 1)]
        while all(federation.mailbox.is_open(*visit) for visit in visits):
            threading.Event().wait(0.05)
        threading.Event().wait(A_WHILE_S)
        for hospital in both:
            hospital.act = _do
            hospital.is_dead.clear()

    waker = threading.Thread(target=wake, daemon=True)
    with federation.alive():
        waker.start()
        run = federation.coordinate()
        waker.join(LONGEST_S)
    assert len(run.manifest(1).contributions) == 1 and len(_codes(run, 1)) == 1, "one was missed, one waited for"


def test_a_hospital_that_vetoes_is_skipped_and_comes_back(tmp_path: Path) -> None:
    federation = Federation(tmp_path, on_absence="skip", quorum=1)
    mayo = federation.hospitals["mayo"]
    mayo.act = _at(1, "veto")
    federation.hospitals["central"].act = _wake_in_round(mayo.is_vetoed, 2)
    with federation.alive():
        run = federation.coordinate()
    assert [(item.site, item.code) for item in run.manifest(run.last_turn()).skipped] == [("mayo", "VETOED")]
    assert run.ending() == "finished" and [item.site for item in run.manifest(4).contributions] == ["mayo"]


def test_a_veto_that_is_lifted_is_waited_for(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    mayo = federation.hospitals["mayo"]
    mayo.act = _at(1, "veto")

    def lift() -> None:
        assert mayo.is_vetoed.wait(LONGEST_S)
        threading.Event().wait(A_WHILE_S)
        mayo.act = _do
        mayo.is_vetoed.clear()

    lifter = threading.Thread(target=lift, daemon=True)
    lifter.start()
    with federation.alive():
        run = federation.coordinate()
    assert run.ending() == "finished" and run.manifest(run.last_turn()).skipped == ()


def test_a_failure_that_leaves_a_round_without_quorum_stops_the_run(tmp_path: Path) -> None:
    federation = Federation(tmp_path, on_failure="skip", quorum=1, schedule={"kind": "fedavg", "rounds": 1})
    for hospital in federation.hospitals.values():
        hospital.act = _at(1, "fail")
    with federation.alive(), pytest.raises(RunStopped, match="fewer than 1 sites, its quorum"):
        federation.coordinate()
    assert federation.run.last_turn() == 0 and federation.run.ending() is None


def _contributors(run: RunState) -> list[list[str]]:
    return [[item.site for item in run.manifest(turn).contributions] for turn in range(1, run.last_turn() + 1)]


@pytest.mark.parametrize("kind", ["alternating", "fedavg"])
def test_a_site_joins_and_another_leaves_between_rounds(tmp_path: Path, kind: str) -> None:
    federation = Federation(tmp_path, schedule={"kind": kind, "rounds": 3}, evaluation={"when": "never"})

    def asks(plan: Plan) -> Act:
        if plan.kind == "train" and plan.round == 1:
            federation.run.members().ask("later", "join")
            while not federation.board.is_there("later"):
                threading.Event().wait(0.01)
        if plan.kind == "train" and plan.round == 2:
            federation.run.members().ask("mayo", "leave")
        return "do"

    federation.hospitals["central"].act = asks
    with federation.alive():
        run = federation.coordinate()
    by_round = {
        "alternating": [["central"], ["mayo"], ["central"], ["mayo"], ["later"], ["central"], ["later"]],
        "fedavg": [["central", "mayo"], ["central", "mayo", "later"], ["central", "later"]],
    }
    assert _contributors(run) == by_round[kind] and run.ending() == "finished"
    assert federation.hospitals["later"].asked[0] == "test/r0002/v00000/later/query", "it is asked first what it holds"
    counts = run.quality()
    assert counts is not None and set(counts.counts) == {"central", "mayo", "later"}
    assert [run.members().of_round(number) for number in (1, 2, 3)] == [
        ("central", "mayo"),
        ("central", "mayo", "later"),
        ("central", "later"),
    ]


def test_a_newcomer_that_is_not_there_joins_a_round_later(tmp_path: Path) -> None:
    federation = Federation(tmp_path, schedule={"kind": "alternating", "rounds": 3})
    later = federation.hospitals["later"]
    later.is_dead.set()
    federation.run.members().ask("later", "join")

    def wakes(plan: Plan) -> Act:
        if plan.kind == "train" and plan.round == 2:
            later.is_dead.clear()
            while not federation.board.is_there("later"):
                threading.Event().wait(0.01)
        return "do"

    federation.hospitals["mayo"].act = wakes
    with federation.alive():
        run = federation.coordinate()
    assert _contributors(run)[-3:] == [["central"], ["mayo"], ["later"]] and run.last_turn() == 7


def test_a_dead_site_that_leaves_is_waited_for_no_longer(tmp_path: Path) -> None:
    federation = Federation(tmp_path)
    mayo = federation.hospitals["mayo"]
    mayo.act = _at(1, "die")

    def let_go() -> None:
        assert mayo.is_dead.wait(LONGEST_S)
        federation.run.members().ask("mayo", "leave")

    letting = threading.Thread(target=let_go, daemon=True)
    letting.start()
    with federation.alive():
        run = federation.coordinate()
    assert _contributors(run) == [["central"], [], ["central"]] and run.ending() == "finished"
    assert [(item.site, item.code) for item in run.manifest(3).skipped] == [("mayo", "ABSENT")]
