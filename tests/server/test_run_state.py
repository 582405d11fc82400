"""A run's folder: what is committed stays, what is not never was."""

import errno
from pathlib import Path

import pytest

from federation import METRICS, small_state
from mammofed_server import run_state
from mammofed_server.run_state import EvaluationRecord, QualityRecord, RunState
from mammofed_shared.checkpoint import Contribution, Failure
from mammofed_shared.errors import CheckpointError, StateError
from mammofed_shared.protocol.payload import reference_of
from runs import begin_small_run, small_run_settings
from small_counts import TOLD

TASKS = ["test/r0001/v00001/central/train", "test/r0001/v00002/mayo/train", "test/r0002/v00003/central/train"]


def _contribution(run: RunState, turn: int, value: float) -> tuple[Contribution, Path]:
    task_id = TASKS[turn - 1]
    path = run.folder / f"update{turn}"
    reference = small_state(path, value)
    return Contribution(site=task_id.split("/")[3], task_id=task_id, update=reference, metrics=METRICS), path


def _commit(run: RunState, turn: int, value: float = 2.0) -> None:
    contribution, path = _contribution(run, turn, value)
    run.commit(turn, int(contribution.task_id[6:10]), (contribution,), (), (path, contribution.update))


def test_a_run_that_has_begun_is_opened_with_its_own_settings(tmp_path: Path) -> None:
    assert not RunState.exists(tmp_path)
    begun = begin_small_run(tmp_path)
    opened = RunState.open(tmp_path, small_run_settings(tmp_path))
    assert opened.record == begun.record
    assert opened.last_turn() == 0 and opened.ending() is None


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"no run has begun here.*fl-server --config"):
        RunState.open(tmp_path)


def test_other_weights_under_the_same_folder_are_refused_by_name(tmp_path: Path) -> None:
    begin_small_run(tmp_path)
    with pytest.raises(StateError, match=r"began with other settings \(seed, task changed\)"):
        RunState.open(tmp_path, small_run_settings(tmp_path, seed=2, task={"name": "pretrain", "batch_size": 4}))


def test_address_and_tracking_may_change_between_two_starts(tmp_path: Path) -> None:
    begin_small_run(tmp_path)
    server = {"folder": str(tmp_path), "identity": "elsewhere", "listen": "127.0.0.1:1"}
    RunState.open(tmp_path, small_run_settings(tmp_path, server=server, tracking={"enabled": True}))


def test_a_run_killed_while_it_begins_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run_state, "write_whole", die)  # run.json: written last
        with pytest.raises(KeyboardInterrupt):
            begin_small_run(tmp_path)
    assert not RunState.exists(tmp_path)
    assert begin_small_run(tmp_path).last_turn() == 0


def test_a_turn_adopts_the_update_and_remembers_whose_moments_go_on(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path)
    _commit(run, 1, 2.0)
    _commit(run, 2, 3.0)
    _commit(run, 3, 4.0)
    manifest = run.manifest(3)
    assert run.last_turn() == 3
    assert manifest.state == reference_of(run.state_path(3)) == small_state(tmp_path / "same", 4.0)
    assert manifest.previous == run.manifest(2).state.digest
    assert manifest.moments == {"central": TASKS[2], "mayo": TASKS[1]}
    run.verify_last()


def test_a_turn_whose_line_in_the_ledger_found_no_room_is_committed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin_small_run(tmp_path)

    def full() -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(run, "enter", full)
        with pytest.raises(OSError, match="full"):
            _commit(run, 1)
    committed = run.manifest(1)
    _commit(run, 1)
    assert run.last_turn() == 1 and run.manifest(1) == committed


def test_an_update_is_adopted_without_a_copy(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path)
    _commit(run, 1)
    assert (tmp_path / "update1").stat().st_ino == run.state_path(1).stat().st_ino


def test_a_turn_in_which_nobody_added_anything_keeps_the_state_and_names_the_failure(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path)
    _commit(run, 1)
    failure = Failure(site="mayo", task_id=TASKS[1], code="NOT_FINITE")
    manifest = run.commit(2, 1, (), (failure,), None)
    assert manifest.failures == (failure,)
    assert manifest.state == run.manifest(1).state
    assert manifest.moments == {"central": TASKS[0]}, "mayo goes on from what it had: nothing"


def test_a_checkpoint_that_was_being_written_does_not_count(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path)
    (tmp_path / "checkpoints/.00001.writing").mkdir()
    assert run.last_turn() == 0
    _commit(run, 1)
    assert run.last_turn() == 1


def test_a_damaged_last_state_is_never_sent(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path)
    _commit(run, 1)
    with run.state_path(1).open("r+b") as file:
        file.truncate(100)
    with pytest.raises(CheckpointError, match="expected state"):
        run.verify_last()


def test_an_evaluation_is_read_as_it_was_committed(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path)
    record = EvaluationRecord(
        turn=0,
        round=0,
        state=run.manifest(0).state.digest,
        metrics={"mayo": {"auroc/mass": 0.75}},
        failures=(Failure(site="central", task_id="t", code="NO_DATA"),),
    )
    assert run.evaluation(0) is None
    run.commit_evaluation(record)
    assert run.evaluation(0) == record


def test_what_the_sites_hold_is_read_as_it_was_committed(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path)
    assert run.quality() is None
    run.commit_quality(QualityRecord(counts={"mayo": TOLD}))
    assert RunState.open(tmp_path).quality() == QualityRecord(counts={"mayo": TOLD})


@pytest.mark.parametrize("ending", ["finished", "cancelled"])
def test_an_ending_is_kept(tmp_path: Path, ending: str) -> None:
    begin_small_run(tmp_path).end(ending)  # type: ignore[arg-type]
    assert RunState.open(tmp_path).ending() == ending
