"""Every strategy on files: equal to Flower's own where it has it, else to its formula."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedTrimmedAvg, FedYogi
from flwr.serverapp.strategy.fedopt import FedOpt
from flwr.supercore.differential_privacy import compute_clip_model_update
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from mammofed_server import aggregation, server_optimizer
from mammofed_server.folding import Folded, SiteUpdate, fold
from mammofed_server.robust import clip_scales, trimmed_mean
from mammofed_server.run_state import RunState
from mammofed_server.schedule import Turn, make_schedule
from mammofed_server.server_optimizer import MOMENT_FILES
from mammofed_shared.checkpoint import STATE_FILE, Contribution
from mammofed_shared.config.schedule import ScheduleSettings
from mammofed_shared.errors import CheckpointError, RunStopped
from mammofed_shared.protocol.flower import become_flower_task
from mammofed_shared.protocol.payload import Payload, reference_of, write_payload
from mammofed_shared.protocol.task_spec import CONTROL, TaskSpec, TensorSpec
from runs import begin_small_run

Arrays = dict[str, NDArray[Any]]
SHAPES = {"a.weight": (7, 5), "a.bias": (7,), "log_scale": ()}
SPEC = TaskSpec(
    task="pretrain",
    weight_key="num_exams",
    tensors={
        **{name: TensorSpec(shape=shape, dtype="F32", kind="parameter") for name, shape in SHAPES.items()},
        "norm.running_mean": TensorSpec(shape=(5,), dtype="F32", kind="buffer"),
        "norm.count": TensorSpec(shape=(), dtype="I64", kind="counter"),
    },
)
EXAMS = (120.0, 77.0, 301.0)
SITES = ("central", "mayo", "emory")


@pytest.fixture(autouse=True, params=[2**18, 4], ids=["whole tensors", "blocks of 4"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (aggregation, server_optimizer):
        monkeypatch.setattr(module, "BLOCK_VALUES", request.param)


def _state(seed: int, spread: float = 1.0) -> Arrays:
    random = np.random.default_rng(seed)
    found: Arrays = {name: np.asarray(spread * random.normal(size=shape), np.float32) for name, shape in SHAPES.items()}
    found["norm.running_mean"] = random.normal(size=5).astype(np.float32)
    return {**found, "norm.count": np.array(100 + seed, np.int64)}


def _near(state: Arrays, seed: int) -> Arrays:
    """An update: the state, moved a little."""
    return {
        name: np.asarray(array + _state(seed, 0.01)[name]) if array.dtype == np.float32 else np.array(seed, np.int64)
        for name, array in state.items()
    }


def _read(path: Path) -> Arrays:
    with Payload(path) as payload:
        return {name: np.array(payload[name]) for name in payload}


def _turn(strategy: dict[str, Any], sites: tuple[str, ...] = SITES, **phase: Any) -> Turn:
    values = {"kind": "fedavg", "rounds": 9, "strategy": strategy, **phase}
    return make_schedule(ScheduleSettings.model_validate(values), sites).turns[0]


class Run:
    """A chain of checkpoints below a folder, each folded from updates of the one before."""

    def __init__(self, folder: Path, turn: Turn, spec: TaskSpec = SPEC) -> None:
        self.folder = folder
        self.turn = turn
        self.spec = spec
        self.number = 0

    def begin(self, state: Arrays) -> None:
        self._checkpoint.mkdir(parents=True)
        write_payload(self._checkpoint / STATE_FILE, state)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / str(self.number)

    @property
    def state(self) -> Arrays:
        return _read(self._checkpoint / STATE_FILE)

    def fold(self, updates: Iterable[Arrays], weights: Iterable[float] = EXAMS) -> Folded:
        """Fold, without a checkpoint of it."""
        given = []
        for number, (update, weight) in enumerate(zip(updates, weights, strict=False)):
            path = self.folder / f"update-{number}"
            given.append(SiteUpdate(SITES[number % 3], path, write_payload(path, update), weight))
        return fold(self.turn, self._checkpoint, given, self.spec, self.folder / "work")

    def step(self, updates: Iterable[Arrays], weights: Iterable[float] = EXAMS) -> Folded:
        """Fold, and make the next checkpoint of it."""
        folded = self.fold(updates, weights)
        self.number += 1
        self._checkpoint.mkdir()
        assert folded.state is not None and folded.optimizer is not None
        for name, (path, reference) in {STATE_FILE: folded.state, **folded.optimizer}.items():
            assert reference_of(path) == reference
            path.rename(self._checkpoint / name)
        return folded


def _floats(arrays: Arrays) -> Arrays:
    return {name: array for name, array in arrays.items() if array.dtype == np.float32}


def _replies(updates: list[Arrays]) -> list[Message]:
    become_flower_task()
    replies = []
    for node, (update, weight) in enumerate(zip(updates, EXAMS, strict=False), start=1):
        record = ArrayRecord({name: Array(array) for name, array in _floats(update).items()})
        content = RecordDict({"arrays": record, "metrics": MetricRecord({"num_exams": weight})})
        replies.append(Message(content, reply_to=Message(RecordDict(), dst_node_id=node, message_type="train")))
    return replies


def _step_of_flower(flower: FedOpt, number: int, state: Arrays, updates: list[Arrays]) -> Arrays:
    """A round of Flower's own from a state in float32, as ours are."""
    flower.current_arrays = _floats(state)
    after, _ = flower.aggregate_train(number, _replies(updates))
    assert after is not None
    return {name: array.numpy().astype(np.float32) for name, array in after.items()}


# ── server optimizers ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "flower"), [("fedadam", FedAdam), ("fedyogi", FedYogi)])
def test_a_server_optimizer_steps_parameters_as_flowers_to_the_bit_and_averages_buffers(
    tmp_path: Path, name: str, flower: type[FedOpt]
) -> None:
    own = flower(weighted_by_key="num_exams", eta=0.03, beta_1=0.8, beta_2=0.95, tau=1e-2)  # type: ignore[call-arg]
    options = {"server_learning_rate": 0.03, "beta_1": 0.8, "beta_2": 0.95, "tau": 1e-2}
    run = Run(tmp_path, _turn({"name": name, **options}))
    run.begin(_state(0))
    for number in range(1, 5):
        state = run.state
        updates = [_near(state, 10 * number + site) for site in range(3)]
        expected = _step_of_flower(own, number, state, updates)
        run.step(updates)
        found = run.state
        for parameter in SHAPES:
            assert found[parameter].tobytes() == expected[parameter].tobytes(), (number, parameter)
            assert not np.array_equal(found[parameter], state[parameter])
        shares = [weight / sum(EXAMS) for weight in EXAMS]
        middle = sum(update["norm.running_mean"].astype(float) * s for update, s in zip(updates, shares, strict=True))
        np.testing.assert_allclose(found["norm.running_mean"], middle, rtol=1e-5)
        assert int(found["norm.count"]) == 10 * number + 2
    with Payload(tmp_path / "4" / MOMENT_FILES[0]) as first, Payload(tmp_path / "4" / MOMENT_FILES[1]) as second:
        assert set(first) == set(second) == set(SHAPES), "no buffer has moments"
        assert own.m_t is not None and own.v_t is not None  # type: ignore[attr-defined]
        for parameter in SHAPES:
            assert first[parameter].tobytes() == np.asarray(own.m_t[parameter]).tobytes()
            assert second[parameter].tobytes() == np.asarray(own.v_t[parameter]).tobytes()  # type: ignore[attr-defined]
        assert first.numbers == {"phase": 1.0, "steps": 4.0}


def test_a_fold_that_is_made_again_gives_the_same_bytes(tmp_path: Path) -> None:
    run = Run(tmp_path, _turn({"name": "fedadam", "server_learning_rate": 0.01}))
    run.begin(_state(0))
    run.step([_near(run.state, seed) for seed in range(3)])
    updates = [_near(run.state, seed) for seed in range(3, 6)]
    once, again = run.fold(updates), run.fold(updates)
    assert once == again and once.optimizer is not None and len(once.optimizer) == 2


def test_moments_of_an_earlier_phase_are_not_gone_on_from(tmp_path: Path) -> None:
    """Ten rounds of another kind may lie between; the step that they would give is not this phase's."""
    optimizer = {"name": "fedadam", "server_learning_rate": 0.01}
    phases = [
        {"kind": "fedavg", "rounds": 1, "strategy": optimizer},
        {"kind": "fedavg", "strategy": {**optimizer, "server_learning_rate": 0.02}},
    ]
    first, second = make_schedule(ScheduleSettings.model_validate({"rounds": 2, "phases": phases}), SITES).turns
    run = Run(tmp_path / "both", first)
    run.begin(_state(0))
    run.step([_near(run.state, seed) for seed in range(3)])
    fresh = Run(tmp_path / "fresh", second)
    fresh.begin(run.state)
    run.turn = second
    updates = [_near(run.state, seed) for seed in range(3, 6)]
    assert run.fold(updates).state[1] == fresh.fold(updates).state[1]  # type: ignore[index]


def test_the_coordinators_moments_are_committed_with_the_state_and_stay_when_nothing_comes(tmp_path: Path) -> None:
    strategy = {"name": "fedyogi", "server_learning_rate": 0.01}
    run = begin_small_run(tmp_path, schedule={"kind": "fedavg", "rounds": 3, "strategy": strategy})
    _commit_fold(run, 1)
    manifest = run.manifest(1)
    assert set(manifest.optimizer) == set(MOMENT_FILES)
    assert reference_of(run.checkpoint_folder(1) / MOMENT_FILES[1]) == manifest.optimizer[MOMENT_FILES[1]]
    run.commit(2, 2, (), (), None)
    assert run.manifest(2).optimizer == manifest.optimizer
    _commit_fold(run, 3)
    with Payload(run.checkpoint_folder(3) / MOMENT_FILES[0]) as payload:
        assert payload.numbers["steps"] == 2
    run.verify_last()
    (run.checkpoint_folder(3) / MOMENT_FILES[0]).write_bytes(b"another")
    with pytest.raises(CheckpointError, match=MOMENT_FILES[0]):
        run.verify_last()


def _commit_fold(run: RunState, number: int) -> None:
    turn = run.schedule().turns[number - 1]
    updates, contributions = [], []
    for index, site in enumerate(("central", "mayo")):
        values = _read(run.state_path(number - 1))
        values["layer.weight"] = values["layer.weight"] + np.float32(0.1 * (index + number))
        path = run.folder / f"update-{index}"
        reference = write_payload(path, values)
        updates.append(SiteUpdate(site, path, reference, 1.0))
        contributions.append(Contribution(site=site, task_id=f"t{index}", update=reference, metrics={}))
    folded = fold(turn, run.checkpoint_folder(number - 1), updates, run.record.spec, run.folder / "work")
    run.commit(number, number, tuple(contributions), (), folded.state, optimizer=folded.optimizer)


# ── robust means ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("num_sites", "trim"), [(3, 0.34), (5, 0.2), (7, 0.4)])
def test_the_trimmed_mean_is_flowers(tmp_path: Path, num_sites: int, trim: float) -> None:
    """Flower adds what is left in the order of ``np.partition``, which hangs on the processor; ours is sorted. The sum
    of one value is the same to the bit, that of more within its rounding."""
    sites = tuple(f"site-{number}" for number in range(num_sites))
    run = Run(tmp_path, _turn({"name": "trimmed-mean", "trim": trim}, sites, weighting="equal"))
    run.begin(_state(0))
    updates = [_state(seed) for seed in range(1, num_sites + 1)]
    replies = [message for number in range(0, num_sites, 3) for message in _replies(updates[number : number + 3])]
    expected, _ = FedTrimmedAvg(weighted_by_key="num_exams", beta=trim).aggregate_train(1, replies)
    assert expected is not None and len(expected) == 4
    run.step(updates, [1.0] * num_sites)
    found = run.state
    for name, array in expected.items():
        if num_sites - 2 * int(trim * num_sites) == 1:
            assert found[name].tobytes() == array.numpy().tobytes()
        np.testing.assert_allclose(found[name], array.numpy(), rtol=1e-6, atol=1e-7)
    assert found["a.weight"].dtype == np.float32


def test_one_site_cannot_move_a_trimmed_mean_beyond_the_others(tmp_path: Path) -> None:
    run = Run(tmp_path, _turn({"name": "trimmed-mean", "trim": 0.34}, weighting="equal"))
    run.begin(_state(0))
    honest = [_near(run.state, seed) for seed in (1, 2)]
    hostile = {name: np.full_like(array, 1e9) for name, array in run.state.items()}
    run.step([*honest, hostile])
    found = run.state
    for name in (*SHAPES, "norm.running_mean"):
        low, high = (function(honest[0][name], honest[1][name]) for function in (np.minimum, np.maximum))
        assert np.all((low <= found[name]) & (found[name] <= high)), name


def test_a_trimmed_mean_of_too_few_updates_stops_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path, _turn({"name": "trimmed-mean", "trim": 0.34}, weighting="equal"))
    run.begin(_state(0))
    with pytest.raises(RunStopped, match=r"round 1: 2 of 3 updates came, of which trim 0\.34 leaves out none"):
        run.fold([_state(1), _state(2)])


def test_a_clipped_update_is_flowers_and_a_smaller_one_stays_to_the_bit(tmp_path: Path) -> None:
    """Flower's fixed clipping (``dp_fixed_clipping``), without its noise; it measures the norm in float32."""
    state = _state(0)
    small, large = _near(state, 1), _state(2)
    norms = [
        float(np.sqrt(sum(np.square(update[name].astype(float) - state[name]).sum() for name in SHAPES)))
        for update in (small, large)
    ]
    most = 0.5
    assert norms[0] < most < norms[1]
    expected = [large[name].copy() for name in SHAPES]
    compute_clip_model_update(expected, [state[name] for name in SHAPES], most)
    for update, norm in ((small, norms[0]), (large, norms[1])):
        run = Run(tmp_path / f"{norm}", _turn({"name": "fedavg", "clip_norm": most}))
        run.begin(state)
        folded = run.step([update])
        assert folded.norms == {"central": pytest.approx(norm, rel=1e-12)}
        found = run.state
        assert found["norm.running_mean"].tobytes() == update["norm.running_mean"].tobytes(), "a buffer is not clipped"
        for name, clipped in zip(SHAPES, expected, strict=True):
            if update is small:
                assert found[name].tobytes() == small[name].tobytes()
            elif name != "log_scale":  # Flower scales in place, which a scalar of numpy does not feel
                np.testing.assert_allclose(found[name], clipped, rtol=2e-6, atol=1e-6)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=5), st.floats(1e-3, 1e3))
def test_no_change_is_longer_than_the_bound_and_none_is_lengthened(norms: list[float], most: float) -> None:
    for norm, scale in zip(norms, clip_scales(norms, most), strict=True):
        assert scale <= 1 and norm * scale <= most * (1 + 1e-12)
        assert scale == 1 or norm > most


_VALUES = arrays(np.float32, (5, 6), elements=st.floats(-1e3, 1e3, width=32))


@given(_VALUES, st.permutations(range(5)))
@settings(max_examples=50, deadline=None)
def test_a_trimmed_mean_knows_no_order_of_sites_and_lies_within_what_is_left(
    values: NDArray[np.float32], order: list[int]
) -> None:
    found = trimmed_mean(list(values), 1)
    assert found.tobytes() == trimmed_mean([values[site] for site in order], 1).tobytes()
    ordered = np.sort(values, axis=0)
    room = 1e-4 + 1e-6 * np.abs(ordered).max()
    assert np.all((ordered[1] - room <= found) & (found <= ordered[3] + room))


# ── control variates ────────────────────────────────────────────────────────────────────────────────────────────


def test_scaffold_adds_the_changes_over_all_sites_and_takes_the_plain_mean(tmp_path: Path) -> None:
    controls = {CONTROL + name: TensorSpec(shape=shape, dtype="F32", kind="control") for name, shape in SHAPES.items()}
    spec = SPEC.model_copy(update={"tensors": {**SPEC.tensors, **controls}})
    run = Run(tmp_path, _turn({"name": "scaffold"}, weighting="equal"), spec)
    begun = _state(0) | {CONTROL + name: np.full(shape, 0.5, np.float32) for name, shape in SHAPES.items()}
    run.begin(begun)
    updates = [
        _near(_state(0), seed) | {CONTROL + name: np.full(shape, seed, np.float32) for name, shape in SHAPES.items()}
        for seed in (1, 2)
    ]
    run.step(updates, [1.0, 1.0])  # the third site of the round did not come
    found = run.state
    for name in SHAPES:
        assert np.all(found[CONTROL + name] == np.float32(0.5 + (1 + 2) / 3)), (
            "N is the number of sites, not of updates"
        )
        np.testing.assert_allclose(found[name], (updates[0][name] + updates[1][name]) / 2, rtol=1e-6)


# ── alternating epochs ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_update_of_an_alternating_turn_is_adopted_and_ends_the_optimizer_of_another_phase(tmp_path: Path) -> None:
    turn = make_schedule(ScheduleSettings(rounds=1), SITES).turns[0]
    path = tmp_path / "update"
    reference = write_payload(path, _state(1))
    folded = fold(turn, tmp_path, [SiteUpdate("central", path, reference, 1.0)], SPEC, tmp_path / "work")
    assert folded == Folded((path, reference), {})
    assert not (tmp_path / "work").exists()


def test_where_nothing_came_nothing_changes(tmp_path: Path) -> None:
    assert fold(_turn({"name": "fedavg"}), tmp_path, [], SPEC, tmp_path / "work") == Folded()
