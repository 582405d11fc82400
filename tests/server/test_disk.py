"""A disk that fills while the coordinator commits: the run waits, says what it needs, and ends in the same state."""

import errno
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict

from bare_site import bare_site
from federation import METRICS, SMALL_SPEC, small_state
from mammofed_server import delivered, disk, run_state, strategies
from mammofed_server.app import app as server_app
from mammofed_server.control import Control
from mammofed_server.disk import when_there_is_room
from mammofed_server.run_state import RunState
from mammofed_shared.errors import RunCancelled
from mammofed_shared.protocol.encoding import encode, encoded_names
from mammofed_shared.protocol.flower import plan_of, update_reply
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.protocol.plan import Update
from mammofed_simulation.simulate import InProcessGrid
from runs import begin_small_run
from small_counts import TOLD


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "LOOK_AGAIN_S", 0.0)


class _Sites:
    """Stands for the sites' ClientApp: adds 1 to the weights, and sends the difference in bfloat16."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, message: Message, context: Context) -> Message:
        plan, state = plan_of(message)
        if plan.kind != "train":
            told = TOLD if plan.kind == "query" else {"auroc/mass": 0.5}
            return update_reply(message, Update(task_id=plan.task_id, payload=None, metrics=told), None)
        assert state is not None
        sent = self.folder / f"sent-{plan.visit}"
        trained, base = self.folder / "trained", self.folder / "base"
        small_state(base, 0.0)
        small_state(trained, 1.0)
        reference = encode(trained, sent, encoded_names(SMALL_SPEC, plan.upload), base=base)
        return update_reply(message, Update(task_id=plan.task_id, payload=reference, metrics=METRICS), sent)


def _begin(folder: Path, **settings: object) -> RunState:
    transfer = {"download": "bf16", "upload": "delta"}
    return begin_small_run(folder / "server", transfer=transfer, evaluation={"when": "visit"}, **settings)


def _run(folder: Path, begun: RunState) -> RunState:
    sites = [bare_site(folder / name, name) for name in ("central", "mayo")]
    grid = InProcessGrid(("central", "mayo"), sites, SMALL_SPEC, _Sites(folder))  # type: ignore[arg-type]
    where = {"folder": str(begun.folder)}
    server_app(grid, Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=where))
    return RunState.open(begun.folder)


def _full_for(number: int, function: Callable[..., object]) -> Callable[..., object]:
    left = [number]

    def sometimes(*args: object, **named: object) -> object:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return function(*args, **named)

    return sometimes


def _weight(run: RunState) -> float:
    with Payload(run.state_path(run.last_turn())) as payload:
        return float(payload["layer.weight"][0, 0])


def test_differences_add_up_in_the_whole_state_and_what_is_delivered_is_removed(tmp_path: Path) -> None:
    run = _run(tmp_path, _begin(tmp_path, checkpoints={"keep_last": 1, "keep_updates": True}))
    assert run.ending() == "finished" and _weight(run) == 5.0, "1, and four visits added 1"
    manifest = run.manifest(4)
    assert manifest.delivered not in (None, manifest.previous), "sites received the rounded state"
    [told] = manifest.contributions
    assert told.decoded == manifest.state == told.whole and told.update != told.decoded
    assert not (run.folder / "delivered").exists()
    assert [turn for turn in range(5) if run.state_path(turn).exists()] == [0, 4]
    kept = {path.name for path in (run.checkpoint_folder(4) / "updates").iterdir()}
    assert kept == {f"{told.site}.safetensors", f"{told.site}.sent.safetensors"}


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ((run_state, "write_checkpoint"), "the checkpoint of turn 1"),
        ((run_state, "link_state"), "the checkpoint of turn 1"),
        ((delivered, "encode"), "the encoded state of turn 0"),
        ((strategies, "fold"), "the checkpoint of turn 1"),
    ],
    ids=["the checkpoint", "its state", "what is delivered", "the mean"],
)
def test_a_run_waits_for_room_and_ends_as_if_nothing_had_happened(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: tuple[object, str],
    what: str,
) -> None:
    schedule = {"kind": "fedavg", "rounds": 2}
    module, name = where
    begun = _begin(tmp_path / "disturbed", schedule=schedule)
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(module, name, _full_for(3, getattr(module, name)))
        run = _run(tmp_path / "disturbed", begun)
    said = [record.getMessage() for record in caplog.records if "disk full" in record.getMessage()]
    assert len(said) == 1 and f"{what} needs 0.0 MB" in said[0], "said once a minute"
    undisturbed = _run(tmp_path / "undisturbed", _begin(tmp_path / "undisturbed", schedule=schedule))
    assert run.manifest(2).state == undisturbed.manifest(2).state and _weight(run) == 3.0


@pytest.mark.parametrize("name", ["commit_quality", "commit_evaluation"])
def test_records_of_numbers_wait_for_room_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    begun = _begin(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(RunState, name, _full_for(2, getattr(RunState, name)))
        run = _run(tmp_path, begun)
    assert run.ending() == "finished" and run.quality() is not None and run.evaluation(4) is not None


def test_a_run_that_waits_for_room_can_be_cancelled(tmp_path: Path) -> None:
    control = Control(tmp_path)
    control.say("cancel")
    with pytest.raises(RunCancelled):
        when_there_is_room(_full_for(10**6, int), "a checkpoint", 1, tmp_path, control)


def test_another_error_is_not_waited_for(tmp_path: Path) -> None:
    def broken() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        when_there_is_room(broken, "a checkpoint", 1, tmp_path, Control(tmp_path))
