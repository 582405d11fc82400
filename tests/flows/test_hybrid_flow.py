"""Several phases through the coordinator's own app; the sites answer by arithmetic, nothing is trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message

from bare_site import bare_site
from federation import METRICS, small_state
from mammofed_server.run_state import RunState
from mammofed_server.server_optimizer import MOMENT_FILES
from mammofed_shared.checkpoint import Manifest
from mammofed_shared.protocol.flower import plan_of, update_reply
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.protocol.plan import Plan, Update
from mammofed_simulation import simulate as simulation
from mammofed_simulation.simulate import simulate
from runs import begin_small_run, small_run_settings
from small_counts import TOLD

ADAM = {"name": "fedadam", "server_learning_rate": 0.1, "clip_norm": 10.0}
SCHEDULE = {
    "rounds": 4,
    "order": "seeded",
    "phases": [{"kind": "alternating", "rounds": 2, "epochs": 2}, {"kind": "fedavg", "strategy": ADAM}],
}


class Sites:
    """In Flower's place: each adds its own number to the weights; remembers what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[Plan] = []

    def __call__(self, message: Message, context: Context) -> Message:
        plan, state = plan_of(message)
        if state is None:
            return update_reply(message, Update(task_id=plan.task_id, payload=None, metrics=TOLD), None)
        self.asked.append(plan)
        with Payload(state) as payload:
            weight = payload["layer.weight"] + np.float32(1 if plan.site == "central" else 3)
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"update-{plan.visit}"
        reference = small_state(path, plan.visit, **{"layer.weight": weight})
        return update_reply(message, Update(task_id=plan.task_id, payload=reference, metrics=METRICS), path)


def _simulate(folder: Path, sites: Sites, monkeypatch: pytest.MonkeyPatch, cut_after: int | None = None) -> RunState:
    monkeypatch.setattr(simulation, "site_app", sites)
    monkeypatch.setattr(simulation, "warm_up", lambda: None)
    if not RunState.exists(folder / "server"):
        begin_small_run(folder / "server", schedule=SCHEDULE)
    run = small_run_settings(folder / "server", schedule=SCHEDULE)
    commit = RunState.commit

    def cut(state: RunState, turn: int, *given: Any, **named: Any) -> Manifest:
        manifest = commit(state, turn, *given, **named)
        if turn == cut_after:
            raise KeyboardInterrupt
        return manifest

    with monkeypatch.context() as patched:
        patched.setattr(RunState, "commit", cut)
        return simulate(run, [bare_site(folder / name, name) for name in run.sites])


def test_a_hybrid_run_goes_from_alternating_epochs_to_a_server_optimizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = Sites(tmp_path / "updates")
    run = _simulate(tmp_path, sites, monkeypatch)
    assert run.ending() == "finished" and run.last_turn() == 6
    assert [len(run.manifest(turn).contributions) for turn in range(1, 7)] == [1, 1, 1, 1, 2, 2]
    assert [plan.num_sites for plan in sites.asked] == [1] * 4 + [2] * 4
    assert [plan.epochs for plan in sites.asked] == [2] * 4 + [1] * 4
    assert [plan.epochs_before for plan in sites.asked] == [0, 2, 4, 6, 8, 8, 9, 9]
    assert {plan.epochs_total for plan in sites.asked} == {10}
    assert {plan.rounds_total for plan in sites.asked} == {4}
    assert [set(run.manifest(turn).optimizer) for turn in range(7)] == [set()] * 5 + [set(MOMENT_FILES)] * 2
    assert run.manifest(6).norms == {"central": pytest.approx(12**0.5), "mayo": pytest.approx(3 * 12**0.5)}
    with Payload(run.state_path(4)) as payload:
        assert np.all(payload["layer.weight"] == 1 + 2 * (1 + 3)), "adopted as they came"
    assert not (run.folder / "folding").exists(), "what a fold made is in the checkpoint alone"


@pytest.mark.parametrize("cut_after", [2, 4, 5])
def test_a_hybrid_run_that_is_killed_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_after: int
) -> None:
    whole = _simulate(tmp_path / "whole", Sites(tmp_path / "a"), monkeypatch)
    sites = Sites(tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        _simulate(tmp_path / "cut", sites, monkeypatch, cut_after)
    cut = _simulate(tmp_path / "cut", sites, monkeypatch)
    assert cut.manifest(6).state == whole.manifest(6).state
    assert cut.manifest(6).optimizer == whole.manifest(6).optimizer
    assert len({plan.task_id for plan in sites.asked}) == len(sites.asked), "nobody trained twice"
