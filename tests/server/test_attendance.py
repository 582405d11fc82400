"""Quorum: which visits a round may do without, and that no run is finished without it."""

from pathlib import Path

import pytest

from federation import METRICS, small_state
from mammofed_server.attendance import Attendance, check_quorum
from mammofed_server.run_state import RunState
from mammofed_server.schedule import Schedule, Visit, make_schedule
from mammofed_shared.checkpoint import Contribution, Failure
from mammofed_shared.errors import StateError
from runs import begin_small_run

SITES = ["central", "emory", "mayo"]
FIRST = {site: f"test/r0001/v{number:05d}/{site}/train" for number, site in enumerate(SITES, start=1)}


def _run(folder: Path, **replaced: object) -> tuple[RunState, Schedule]:
    run = begin_small_run(folder, **{"sites": SITES, "schedule": {"kind": "alternating", "rounds": 2}, **replaced})
    settings = run.record.settings
    return run, make_schedule(settings.schedule, settings.training_sites)


def _attendance(run: RunState, schedule: Schedule, round_number: int = 1) -> Attendance:
    turns = [turn for turn in schedule.turns if turn.round == round_number]
    return Attendance(run.record.settings, turns, run)


def _commit(run: RunState, turn: int, site: str, *, is_missed: bool = False) -> None:
    task_id = f"test/r{(turn - 1) // 3 + 1:04d}/v{turn:05d}/{site}/train"
    if is_missed:
        run.commit(turn, 1, (), (Failure(site=site, task_id=task_id, code="ABSENT"),), None)
        return
    update = run.folder / f"update{turn}"
    reference = small_state(update, float(turn))
    contribution = Contribution(site=site, task_id=task_id, update=reference, metrics=METRICS)
    run.commit(turn, (turn - 1) // 3 + 1, (contribution,), (), (update, reference))


def test_without_a_quorum_every_scheduled_site_counts(tmp_path: Path) -> None:
    attendance = _attendance(*_run(tmp_path))
    assert attendance.quorum == 3 and attendance.can_spare()
    assert not attendance.can_spare(FIRST["mayo"])


def test_visits_are_missed_only_as_far_as_the_quorum_allows(tmp_path: Path) -> None:
    attendance = _attendance(*_run(tmp_path, quorum=2, on_absence="skip"))
    assert attendance.may_be_given_up(FIRST["mayo"], SITES)
    attendance.miss(FIRST["mayo"])
    assert attendance.can_spare() and not attendance.may_be_given_up(FIRST["emory"], SITES), "one of three is missed"


def test_what_was_missed_in_committed_turns_of_the_round_counts(tmp_path: Path) -> None:
    run, schedule = _run(tmp_path, quorum=2, on_absence="skip")
    _commit(run, 1, "central", is_missed=True)
    attendance = _attendance(run, schedule)
    assert attendance.can_spare() and not attendance.may_be_given_up(FIRST["emory"], SITES)
    assert _attendance(run, schedule, 2).can_spare("test/r0002/v00004/central/train"), "the next round counts anew"


def test_with_wait_nothing_is_given_up(tmp_path: Path) -> None:
    assert not _attendance(*_run(tmp_path, quorum=1)).may_be_given_up(FIRST["mayo"], SITES)


def test_a_site_stands_in_when_it_is_there(tmp_path: Path) -> None:
    run, schedule = _run(
        tmp_path,
        schedule={"kind": "alternating", "rounds": 2, "order": ["central", "mayo"]},
        on_absence="fallback",
        substitutes={"mayo": "emory"},
    )
    mayo, emory = "test/r0001/v00002/mayo/train", "test/r0001/v00002/emory/train"
    attendance = _attendance(run, schedule)
    assert not attendance.may_be_given_up(mayo, ["central"]), "its substitute is away as well: wait for either"
    assert attendance.may_be_given_up(mayo, ["central", "emory"])
    attendance.miss(mayo)
    assert not attendance.can_spare()
    attendance.expect(Visit(2, 1, "emory", 1, 1, 4))
    assert attendance.can_spare() and not attendance.may_be_given_up(emory, ["central"])


def test_nobody_counts_on_a_site_that_has_left(tmp_path: Path) -> None:
    attendance = _attendance(*_run(tmp_path))
    attendance.leave("mayo")
    assert attendance.quorum == 2 and attendance.can_spare()
    assert attendance.may_be_given_up(FIRST["mayo"], SITES), "even with `wait`"
    strict = _attendance(*_run(tmp_path / "strict", quorum=3))
    strict.leave("mayo")
    assert strict.quorum == 3 and not strict.can_spare(), "three were asked for, whoever leaves"


def test_a_run_is_not_finished_when_a_round_lacks_its_quorum(tmp_path: Path) -> None:
    run, schedule = _run(tmp_path, quorum=3)
    for turn, site in enumerate(SITES, start=1):
        _commit(run, turn, site)
    check_quorum(run.record.settings, schedule.turns, run)
    for turn, site in enumerate(SITES, start=4):
        _commit(run, turn, site, is_missed=site == "emory")
    with pytest.raises(StateError, match="round 2 has fewer sites than its quorum"):
        check_quorum(run.record.settings, schedule.turns, run)
