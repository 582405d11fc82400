"""The status: what `fl-server status` and the live table show, and when they say that nobody is there."""

import math
from pathlib import Path

import pytest
from rich.console import Console

from federation import METRICS, small_state
from mammofed_server import sites, status
from mammofed_server.run_state import EvaluationRecord, RunState
from mammofed_server.sites import SiteBoard
from mammofed_server.status import StatusWriter, read_status, status_table
from mammofed_shared.checkpoint import Contribution, Failure
from mammofed_shared.errors import StateError
from mammofed_shared.protocol import federation_pb2 as pb
from runs import begin_small_run

TASK = "test/r0002/v00003/mayo/train"


@pytest.fixture
def run(tmp_path: Path) -> RunState:
    return begin_small_run(tmp_path, schedule={"kind": "alternating", "rounds": 3})


@pytest.fixture
def board() -> SiteBoard:
    return SiteBoard(("central", "mayo"))


def _training(loss: float = 1.5, samples_per_s: float = 12.0) -> pb.PollRequest:
    return pb.PollRequest(
        state=pb.TRAINING, task_id=TASK, epoch=0, step=3, num_steps=12, loss=loss, samples_per_s=samples_per_s
    )


def _text(status_: status.RunStatus) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(status_table(status_))
    return captured.get()


def _commit(run: RunState, turn: int, *failures: Failure) -> None:
    update = run.folder / f"update{turn}"
    reference = small_state(update, float(turn))
    contribution = Contribution(site="central", task_id="t", update=reference, metrics=METRICS)
    run.commit(turn, 1, () if failures else (contribution,), failures, None if failures else (update, reference))


def test_the_table_shows_site_state_round_step_loss_and_speed(run: RunState, board: SiteBoard) -> None:
    board.hello("mayo", 150, 90)
    board.polled("mayo", _training(), TASK)
    writer = StatusWriter(run, board)
    writer.word = "running"
    writer.write()
    read = read_status(run.folder)
    assert read == writer.read().model_copy(update={"written": read.written})
    mayo = next(line for line in read.sites if line.site == "mayo")
    assert (mayo.state, mayo.kind, mayo.round, mayo.visit) == ("training", "train", 2, 3)
    assert (mayo.step, mayo.num_steps, mayo.loss, mayo.samples_per_s) == (3, 12, 1.5, 12.0)
    assert mayo.num_training_exams == 150
    row = next(line for line in _text(read).splitlines() if " mayo " in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]][:7] == [
        "mayo",
        "training",
        "2/3",
        "3/12",
        "75%",
        "1.500",
        "12.0",
    ]
    assert "not connected" in _text(read) and "never" in _text(read), "central has not called"


def test_the_table_shows_the_newest_evaluation(run: RunState, board: SiteBoard) -> None:
    record = {"turn": 0, "round": 0, "state": run.manifest(0).state.digest}
    run.commit_evaluation(EvaluationRecord.model_validate({**record, "metrics": {"mayo": {"auroc/mass": 0.75}}}))
    text = _text(StatusWriter(run, board).read())
    assert "AUROC mass" in text and "0.750" in text


def test_a_visit_that_was_skipped_stays_in_the_title(run: RunState, board: SiteBoard) -> None:
    _commit(run, 1)
    _commit(run, 2, Failure(site="mayo", task_id="test/r0001/v00002/mayo/train", code="NOT_FINITE"))
    writer = StatusWriter(run, board)
    assert writer.read().skipped == ("mayo, round 1: NOT_FINITE",)
    _commit(run, 3, Failure(site="central", task_id="test/r0002/v00003/central/train", code="ABSENT"))
    assert writer.read().skipped == ("mayo, round 1: NOT_FINITE", "central, round 2: ABSENT")
    assert "WITHOUT mayo, round 1: NOT_FINITE; central, round 2: ABSENT" in " ".join(_text(writer.read()).split())


def test_the_eta_counts_turns_of_this_start(run: RunState, board: SiteBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(status.time, "monotonic", lambda: now[0])
    _commit(run, 1)
    writer = StatusWriter(run, board)
    now[0] = 110.0
    assert writer.read().eta_s is None, "the turn before this start says nothing of its speed"
    _commit(run, 2)
    assert writer.read().eta_s == pytest.approx(40.0), "10 s a turn, four of six to come"
    assert "ETA 0:40 min" in _text(writer.read())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_does_not_hide_the_status(run: RunState, board: SiteBoard, value: float) -> None:
    board.polled("mayo", _training(loss=value, samples_per_s=value), TASK)
    StatusWriter(run, board).write()
    assert next(line for line in read_status(run.folder).sites if line.site == "mayo").step == 3


def test_a_coordinator_that_fell_silent_is_shown_as_interrupted(
    run: RunState, board: SiteBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = StatusWriter(run, board)
    writer.word = "running"
    writer.write()
    assert read_status(run.folder).state == "running"
    later = status.time.time() + status.STALE_AFTER_S + 1
    monkeypatch.setattr(status.time, "time", lambda: later)
    assert read_status(run.folder).state == "interrupted"


def test_a_run_that_is_over_stays_so(run: RunState, board: SiteBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = StatusWriter(run, board)
    writer.start()
    writer.stop("finished")
    later = status.time.time() + 1e6
    monkeypatch.setattr(status.time, "time", lambda: later)
    assert read_status(run.folder).state == "finished"


def test_where_no_coordinator_ran_there_is_no_status(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no coordinator has run here"):
        read_status(tmp_path)


def test_a_site_that_counts_its_data_is_shown_so(run: RunState, board: SiteBoard) -> None:
    board.hello("mayo", 1, 1)
    board.polled("mayo", pb.PollRequest(state=pb.COUNTING), "test/r0000/v00000/mayo/query")
    mayo = next(line for line in StatusWriter(run, board).read().sites if line.site == "mayo")
    assert (mayo.state, mayo.kind, mayo.round, mayo.visit) == ("counting", "query", 0, 0)


def test_a_site_that_is_silent_is_stale_within_two_minutes(board: SiteBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    board.hello("mayo", 1, 1)
    later = sites.time.monotonic() + 119
    monkeypatch.setattr(sites.time, "monotonic", lambda: later)
    assert {item.site: item.state for item in board.snapshot()} == {"central": "not connected", "mayo": "stale"}
    assert (board.missing("central"), board.missing("mayo")) == ("silent", "silent")
    board.heard("mayo")
    assert (board.missing("central"), board.missing("mayo")) == ("silent", ""), "a part of an upload is a sign of life"


def test_a_site_is_judged_by_its_own_pace(board: SiteBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    began, now = sites.time.monotonic(), [0.0]
    monkeypatch.setattr(sites.time, "monotonic", lambda: began + now[0])

    def at(seconds: float, step: int, steps_per_s: float) -> str:
        now[0] = seconds
        request = {"state": pb.TRAINING, "task_id": TASK, "step": step, "steps_per_s": steps_per_s}
        board.polled("mayo", pb.PollRequest(**request), TASK)
        return board.missing("mayo")

    assert at(0, 1, 1.0) == "" and at(590, 1, 1.0) == ""
    assert at(610, 1, 1.0) == "stalled", "a step of a second has taken ten minutes"
    assert next(item.state for item in board.snapshot() if item.site == "mayo") == "stale"
    assert at(620, 2, 1.0) == "", "it goes on"
    assert at(700, 3, 0.05) == "" and at(700 + 1900, 3, 0.05) == "", "20 times slower: 20 times the patience"
    assert at(700 + 2001, 3, 0.05) == "stalled"
    assert at(9999, 0, 0.0) == "" and at(99999, 0, 0.0) == "", "before its first step it has no pace"


def test_what_a_site_did_in_this_round_is_its_state_until_the_next(board: SiteBoard) -> None:
    def shown() -> str:
        return next(item.state for item in board.snapshot() if item.site == "mayo")

    board.hello("mayo", 1, 1)
    assert shown() == "connected"
    board.begin_round(2)
    board.polled("mayo", pb.PollRequest(state=pb.READY), "")
    assert shown() == "ready"
    board.concluded("mayo", 2, "contributed")
    assert shown() == "contributed"
    board.polled("mayo", _training(), TASK)
    assert shown() == "training", "its second visit of the round"
    board.concluded("mayo", 2, "refused")
    board.polled("mayo", pb.PollRequest(state=pb.READY), "")
    assert shown() == "refused"
    board.begin_round(3)
    assert shown() == "ready"


def test_everybody_knows_the_end_once_each_site_that_is_there_was_told(board: SiteBoard) -> None:
    board.hello("mayo", 1, 1)
    assert not board.all_know_end()
    board.told_end("mayo")
    assert board.all_know_end(), "central never called: nobody waits for it"
    board.hello("central", 1, 1)
    assert not board.all_know_end()
