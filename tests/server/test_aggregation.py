"""The mean of updates: equal to Flower's own FedAvg to the bit, and flat in memory."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from federation import SMALL_SPEC
from mammofed_server import aggregation
from mammofed_server.control import Control
from mammofed_server.folding import SiteUpdate, fold
from mammofed_server.run_state import RunState
from mammofed_server.schedule import make_schedule
from mammofed_server.strategies import make_strategy
from mammofed_shared.checkpoint import STATE_FILE, Contribution
from mammofed_shared.config.schedule import ScheduleSettings
from mammofed_shared.protocol.flower import become_flower_task
from mammofed_shared.protocol.payload import Payload, PayloadWriter, reference_of, write_payload
from mammofed_shared.protocol.plan import PayloadReference
from mammofed_shared.protocol.task_spec import TaskSpec, TensorSpec
from runs import begin_small_run

SHAPES = {"a.weight": (7, 5), "a.bias": (7,), "log_scale": (1,), "scalar": (), "empty": (0, 3)}
SPEC = TaskSpec(
    task="pretrain",
    weight_key="num_exams",
    tensors={
        **{name: TensorSpec(shape=shape, dtype="F32", kind="parameter") for name, shape in SHAPES.items()},
        "norm.running_mean": TensorSpec(shape=(5,), dtype="F32", kind="buffer"),
        "norm.count": TensorSpec(shape=(), dtype="I64", kind="counter"),
    },
)
Arrays = dict[str, NDArray[Any]]


def _update(seed: int) -> Arrays:
    random = np.random.default_rng(seed)
    arrays: Arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    arrays["norm.running_mean"] = random.normal(size=5).astype(np.float32)
    return {**arrays, "norm.count": np.array(100 - seed, np.int64)}


def _mean_of_flower(updates: list[Arrays], weights: list[float]) -> Arrays:
    """What ``flwr.serverapp.strategy.FedAvg`` makes of the float tensors."""
    become_flower_task()
    replies = []
    for node, (arrays, weight) in enumerate(zip(updates, weights, strict=True), start=1):
        floats = ArrayRecord({name: Array(array) for name, array in arrays.items() if array.dtype == np.float32})
        asked = Message(RecordDict(), dst_node_id=node, message_type="train")
        content = RecordDict({"arrays": floats, "metrics": MetricRecord({"num_exams": weight})})
        replies.append(Message(content, reply_to=asked))
    mean, _ = FedAvg(weighted_by_key="num_exams").aggregate_train(1, replies)
    assert mean is not None
    return {name: array.numpy() for name, array in mean.items()}


def _files(folder: Path, updates: list[Arrays]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for number, arrays in enumerate(updates):
        write_payload(folder / f"{number}.safetensors", arrays)
    return sorted(folder.iterdir())


def _read(path: Path) -> Arrays:
    with Payload(path) as payload:
        return {name: np.array(payload[name]) for name in payload}


def _mean(paths: list[Path], weights: list[float], work: Path, spec: TaskSpec = SPEC) -> PayloadReference:
    """The mean of updates as a FedAvg turn folds it, in ``work``."""
    turn = make_schedule(ScheduleSettings(kind="fedavg", rounds=1), ("central", "mayo")).turns[0]
    updates = [
        SiteUpdate(f"site{number}", path, reference_of(path), weight)
        for number, (path, weight) in enumerate(zip(paths, weights, strict=True))
    ]
    folded = fold(turn, work / "no-checkpoint-is-read", updates, spec, work)
    assert folded.state is not None and folded.state[0] == work / STATE_FILE
    return folded.state[1]


def _assert_same_bits(found: Arrays, expected: Arrays) -> None:
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize(
    "weights",
    [[120.0, 77.0, 301.0], [1.0, 1.0, 1.0], [3.0], [1.0, 1e6]],
    ids=["by exams", "equal", "a single update", "far apart"],
)
@pytest.mark.parametrize("block_values", [2**22, 4], ids=["one block", "blocks of 4"])
def test_the_mean_is_flowers_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: list[float], block_values: int
) -> None:
    monkeypatch.setattr(aggregation, "BLOCK_VALUES", block_values)
    updates = [_update(seed) for seed in range(len(weights))]
    paths = _files(tmp_path / "updates", updates)
    assert _mean(paths, weights, tmp_path / "mean") == reference_of(tmp_path / "mean" / STATE_FILE)
    expected = _mean_of_flower(updates, weights)
    assert set(expected) == set(SPEC.tensors) - {"norm.count"}
    _assert_same_bits(_read(tmp_path / "mean" / STATE_FILE), expected)


def test_of_a_counter_the_largest_is_kept(tmp_path: Path) -> None:
    paths = _files(tmp_path / "updates", [_update(seed) for seed in (5, 2, 9)])
    _mean(paths, [1.0] * 3, tmp_path / "mean")
    found = _read(tmp_path / "mean" / STATE_FILE)["norm.count"]
    assert found.dtype == np.int64 and found.shape == () and int(found) == 98


def test_the_layout_of_an_update_does_not_change_the_mean(tmp_path: Path) -> None:
    """A site may order its file otherwise; tensors are found by name."""
    updates = [_update(1), _update(2)]
    paths = _files(tmp_path / "updates", updates)
    straight = _mean(paths, [1.0, 2.0], tmp_path / "mean")
    rewritten = tmp_path / "rewritten"
    _write_reversed(rewritten, updates[1])
    assert reference_of(rewritten) != reference_of(paths[1])
    assert _mean([paths[0], rewritten], [1.0, 2.0], tmp_path / "mean") == straight


def _write_reversed(path: Path, arrays: Arrays) -> None:
    header: dict[str, Any] = {}
    offset = 0
    for name in reversed(arrays):
        end = offset + arrays[name].nbytes
        dtype = "I64" if arrays[name].dtype == np.int64 else "F32"
        header[name] = {"dtype": dtype, "shape": list(arrays[name].shape), "data_offsets": [offset, end]}
        offset = end
    with PayloadWriter(path, header) as writer:
        for name in reversed(arrays):
            writer.write(arrays[name])


def test_memory_grows_neither_with_sites_nor_with_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregation, "BLOCK_VALUES", 2**14)  # 64 KB
    spec = TaskSpec(
        task="pretrain",
        weight_key="num_exams",
        tensors={"large": TensorSpec(shape=(2**21,), dtype="F32", kind="parameter")},
    )
    paths = _files(tmp_path / "updates", [{"large": np.full(2**21, seed, np.float32)} for seed in range(5)])
    assert paths[0].stat().st_size > 8 * 2**20
    tracemalloc.start()
    try:
        _mean(paths, [1.0] * 5, tmp_path / "mean", spec)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * 2**14 * 4, f"five updates of 8 MB, blocks of 64 KB, {peak} bytes at the most"
    assert _read(tmp_path / "mean" / STATE_FILE)["large"][0] == np.float32(2)


# ── the strategies ──────────────────────────────────────────────────────────────────────────────────────────────


def _fold(run: RunState, paths: list[Path], exams: list[float]) -> Arrays:
    turn = run.schedule().turns[0]
    contributions = [
        Contribution(site=f"site{number}", task_id="t", update=reference_of(path), metrics={"num_exams": weight})
        for number, (path, weight) in enumerate(zip(paths, exams, strict=True))
    ]
    folded = make_strategy(run, Control(run.folder))._fold(turn, contributions, paths)
    assert folded.state is not None and folded.state[1] == reference_of(folded.state[0])
    return _read(folded.state[0])


def _small_updates(folder: Path, count: int) -> tuple[list[Path], list[Arrays]]:
    random = np.random.default_rng(4)
    updates: list[Arrays] = []
    for _ in range(count):
        arrays: Arrays = {
            name: random.normal(size=tensor.shape).astype(np.float32) for name, tensor in SMALL_SPEC.tensors.items()
        }
        updates.append({**arrays, "norm.num_batches_tracked": np.array(7, np.int64)})
    return _files(folder, updates), updates


@pytest.mark.parametrize("weighting", ["exams", "equal"])
def test_streamed_fedavg_weighs_as_flowers_fedavg(tmp_path: Path, weighting: str) -> None:
    run = begin_small_run(tmp_path / "run", schedule={"kind": "fedavg", "rounds": 2, "weighting": weighting})
    paths, updates = _small_updates(tmp_path / "updates", 2)
    exams = [30.0, 10.0]
    weights = exams if weighting == "exams" else [1.0, 1.0]
    _assert_same_bits(_fold(run, paths, exams), _mean_of_flower(updates, weights))


def test_alternating_epochs_is_flowers_fedavg_over_one_reply(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path / "run", schedule={"kind": "alternating", "rounds": 2})
    paths, updates = _small_updates(tmp_path / "updates", 1)
    found = _fold(run, paths, [30.0])
    _assert_same_bits(found, _mean_of_flower(updates, [30.0]))
    _assert_same_bits(found, updates[0])


def test_the_reference_of_a_mean_is_of_the_file_that_lies_there(tmp_path: Path) -> None:
    paths = _files(tmp_path / "updates", [_update(0)])
    (tmp_path / "mean").mkdir()
    (tmp_path / "mean" / STATE_FILE).write_bytes(b"an older one")
    reference = _mean(paths, [2.0], tmp_path / "mean")
    assert reference.size == (tmp_path / "mean" / STATE_FILE).stat().st_size
