"""Which states of earlier turns are removed, and what never is."""

from pathlib import Path

import pytest

from federation import METRICS, small_state
from mammofed_server.retention import forget_states
from mammofed_server.run_state import EvaluationRecord, RunState
from mammofed_server.serve import open_or_begin
from mammofed_shared.checkpoint import Contribution, read_checkpoint
from mammofed_shared.errors import CheckpointError
from mammofed_shared.protocol.payload import reference_of
from runs import begin_small_run, small_run_settings


def _run(folder: Path, num_turns: int, **checkpoints: object) -> RunState:
    run = begin_small_run(folder, checkpoints=checkpoints)
    for turn in range(1, num_turns + 1):
        _commit(run, turn)
    return run


def _commit(run: RunState, turn: int) -> None:
    path = run.folder / "spool" / str(turn) / "update.safetensors"
    path.parent.mkdir(parents=True)
    reference = small_state(path, float(turn))
    (path.parent / "sent.safetensors").write_bytes(b"as it was sent")
    contribution = Contribution(
        site="mayo", task_id=f"test/r0001/v{turn:05d}/mayo/train", update=reference, metrics=METRICS
    )
    run.commit(turn, turn, (contribution,), (), (path, reference), updates={"mayo": path})


def _states(run: RunState) -> list[int]:
    return [turn for turn in range(run.last_turn() + 1) if run.state_path(turn).exists()]


def test_all_states_stay_unless_a_run_says_otherwise(tmp_path: Path) -> None:
    run = _run(tmp_path, 3)
    forget_states(run, lambda _: False)
    assert _states(run) == [0, 1, 2, 3]


def test_the_first_the_newest_and_each_nth_stay_and_every_manifest(tmp_path: Path) -> None:
    run = _run(tmp_path, 9, keep_last=2, keep_every=3)
    forget_states(run, lambda _: False)
    assert _states(run) == [0, 3, 6, 8, 9]
    assert [run.manifest(turn).turn for turn in range(10)] == list(range(10))
    with pytest.raises(CheckpointError, match=r"the state is missing.*keep_last"):
        read_checkpoint(run.checkpoint_folder(5))


def test_a_state_that_is_still_to_be_evaluated_stays(tmp_path: Path) -> None:
    run = _run(tmp_path, 4, keep_last=1)
    for turn in (1, 3):
        run.commit_evaluation(EvaluationRecord(turn=turn, round=1, state=run.manifest(turn).state.digest, metrics={}))
    forget_states(run, lambda turn: run.evaluation(turn) is None)
    assert _states(run) == [0, 2, 4]


def test_updates_are_kept_with_their_state_and_go_with_it(tmp_path: Path) -> None:
    run = _run(tmp_path, 3, keep_last=1, keep_updates=True)
    kept = run.checkpoint_folder(3) / "updates"
    assert reference_of(kept / "mayo.safetensors") == run.manifest(3).contributions[0].update
    assert (kept / "mayo.sent.safetensors").read_bytes() == b"as it was sent"
    forget_states(run, lambda _: False)
    assert [run.checkpoint_folder(turn).joinpath("updates").exists() for turn in (1, 2, 3)] == [False, False, True]


def test_updates_are_not_kept_unless_a_run_says_so(tmp_path: Path) -> None:
    run = _run(tmp_path, 1)
    assert not (run.checkpoint_folder(1) / "updates").exists()


def test_what_is_kept_may_change_when_a_run_is_resumed(tmp_path: Path) -> None:
    _run(tmp_path, 3)
    began = (tmp_path / "run.json").read_bytes()
    resumed = open_or_begin(small_run_settings(tmp_path, checkpoints={"keep_last": 1}))
    assert RunState.open(tmp_path).checkpoints == resumed.checkpoints
    forget_states(resumed, lambda _: False)
    assert _states(resumed) == [0, 3]
    assert (tmp_path / "run.json").read_bytes() == began, "the ledger has its seal"
    assert resumed.record.settings.digest == small_run_settings(tmp_path).digest, "it does not touch the weights"


def test_keep_every_alone_would_have_no_effect(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep_every has no effect without keep_last"):
        small_run_settings(tmp_path, checkpoints={"keep_every": 2})
