"""The edge to Flower's simulation engine, without Ray: every byte comes back, and what differs is refused."""

import importlib.util
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Error, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore import telemetry

from federation import METRICS, SMALL_SPEC, make_plan, small_state
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.site import DatasetSettings, SiteSettings
from mammofed_shared.errors import ConfigurationError, PayloadError, RefusalCode, RunStopped
from mammofed_shared.protocol.flower import become_flower_task, plan_message, plan_of, update_of, update_reply
from mammofed_shared.protocol.payload import Payload, PayloadWriter, reference_of, write_payload
from mammofed_shared.protocol.plan import PayloadReference, Plan, Update
from mammofed_simulation import ray_edge
from mammofed_simulation.ray_edge import NAME_QUERY, PARTITION_KEY, TENSORS, edge_app, to_arrays, to_file
from mammofed_simulation.ray_grid import RayGrid, simulate_on_ray
from mammofed_site.visit import visit_folder
from small_counts import TOLD


def _every_dtype(path: Path) -> PayloadReference:
    """A payload with 0-d, empty and non-contiguous tensors and with values that a conversion would change."""
    floats = np.array([np.nan, -0.0, np.inf, 5e-324, 1 / 3], np.float64)
    return write_payload(
        path,
        {
            "double": floats,
            "single": np.array([[np.float32(1e-45), np.float32(0.1)], [np.float32(3e38), np.float32(-0.0)]]).T,
            "half": np.array([6e-8, 65504], np.float16),
            "norm.num_batches_tracked": np.array(2**53 + 1, np.int64),
            "scale": np.array(np.float32(0.07)),
            "small": np.array([-(2**31), 2**31 - 1], np.int32),
            "bytes": np.arange(256, dtype=np.uint8).reshape(2, 4, 32),
            "empty": np.zeros((0, 3), np.float32),
        },
    )


def _bfloat16(path: Path) -> PayloadReference:
    bits = np.arange(0x3F80, 0x3F86, dtype=np.uint16).reshape(2, 3)
    header = {
        "__metadata__": {"numbers": "{}"},
        "weight": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, bits.nbytes]},
    }
    with PayloadWriter(path, header) as writer:
        writer.write(bits)
    return writer.reference


@pytest.mark.parametrize("write", [_every_dtype, _bfloat16])
def test_a_file_becomes_arrays_and_the_same_file_again(tmp_path: Path, write: Any) -> None:
    reference = write(tmp_path / "state")
    to_file(to_arrays(tmp_path / "state"), tmp_path / "again", reference)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "state").read_bytes()
    assert reference_of(tmp_path / "again") == reference


def test_arrays_have_the_names_dtypes_shapes_and_bits_of_the_file(tmp_path: Path) -> None:
    _every_dtype(tmp_path / "state")
    record = to_arrays(tmp_path / "state")
    with Payload(tmp_path / "state") as payload:
        assert list(record) == list(payload)
        for name in payload:
            assert record[name].shape == payload[name].shape
            assert record[name].dtype == str(payload[name].dtype)
            assert record[name].numpy().tobytes() == payload[name].tobytes()
    counter = record["norm.num_batches_tracked"]
    assert (counter.shape, counter.dtype, int(counter.numpy())) == ((), "int64", 2**53 + 1)


def test_bfloat16_keeps_its_name_although_numpy_has_none(tmp_path: Path) -> None:
    _bfloat16(tmp_path / "state")
    assert to_arrays(tmp_path / "state")["weight"].dtype == "bfloat16"


def _other_value(record: ArrayRecord) -> None:
    value = record["layer.weight"].numpy()
    value[0, 0] = np.nextafter(value[0, 0], np.float32(0))
    record["layer.weight"] = Array(value)


def _other_name(record: ArrayRecord) -> None:
    record["layer.bias"] = record.pop("layer.weight")


def _missing(record: ArrayRecord) -> None:
    del record["norm.running_mean"]


def _other_order(record: ArrayRecord) -> None:
    record["layer.weight"] = record.pop("layer.weight")


def _flat(record: ArrayRecord) -> None:
    record["layer.weight"] = Array(record["layer.weight"].numpy().reshape(-1))


@pytest.mark.parametrize("change", [_other_value, _other_name, _missing, _other_order, _flat])
def test_arrays_that_are_not_the_named_file_are_refused(tmp_path: Path, change: Any) -> None:
    reference = small_state(tmp_path / "state")
    record = to_arrays(tmp_path / "state")
    change(record)
    with pytest.raises(PayloadError) as refused:
        to_file(record, tmp_path / "again", reference)
    assert refused.value.code is RefusalCode.DIGEST_MISMATCH
    assert [path.name for path in tmp_path.iterdir()] == ["state"], "nothing of it stays"


def _not_an_array(array: Array) -> Array:
    return Array(array.dtype, array.shape, array.stype, array.data[:20])


def _torch_array(array: Array) -> Array:
    return Array(array.dtype, array.shape, "torch", array.data)


def _lying_dtype(array: Array) -> Array:
    return Array("int32", array.shape, array.stype, array.data)


def _lying_shape(array: Array) -> Array:
    return Array(array.dtype, (3, 4), array.stype, array.data)


def _unknown_dtype(array: Array) -> Array:
    return Array("complex64", array.shape, array.stype, array.data)


@pytest.mark.parametrize("spoil", [_not_an_array, _torch_array, _lying_dtype, _lying_shape, _unknown_dtype])
def test_an_array_that_is_not_what_it_says_is_refused_with_its_name(tmp_path: Path, spoil: Any) -> None:
    reference = small_state(tmp_path / "state")
    record = to_arrays(tmp_path / "state")
    record["layer.weight"] = spoil(record["layer.weight"])
    with pytest.raises(PayloadError, match=r"layer\.weight") as refused:
        to_file(record, tmp_path / "again", reference)
    assert refused.value.code is RefusalCode.MALFORMED_PAYLOAD
    assert [path.name for path in tmp_path.iterdir()] == ["state"], "nothing of it stays"


ASKS_NAME = f"{MessageType.QUERY}.{NAME_QUERY}"


# ── messages: an engine without Ray, that calls the sites' app at once ──────────────────────────────────────────


@dataclass
class Engine:
    """What RayGrid needs of Flower's own grid; its nodes have numbers as arbitrary as the engine's."""

    app: ClientApp
    nodes: Sequence[int] = (907, 311)
    fails_with: Error | None = None
    spoil: Any = None
    replies: dict[str, Message] = field(default_factory=dict)

    def get_node_ids(self) -> Iterable[int]:
        return self.nodes

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for message in messages:
            node = message.metadata.dst_node_id
            message.metadata.__dict__["_message_id"] = f"message {len(self.replies)}"
            self.replies[message.metadata.message_id] = self._answer(message, node)
        return list(self.replies)

    def _answer(self, message: Message, node: int) -> Message:
        config = {PARTITION_KEY: self.nodes.index(node)}
        if self.fails_with is not None and message.metadata.message_type != ASKS_NAME:
            return Message(self.fails_with, reply_to=message)
        reply = self.app(message, Context(1, node, config, RecordDict(), {}))
        if self.spoil is not None and message.metadata.message_type != ASKS_NAME:
            self.spoil(reply)
        return reply

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self.replies.pop(message_id) for message_id in message_ids]


@pytest.fixture
def sites(tmp_path: Path) -> list[SiteSettings]:
    return [
        SiteSettings(
            site=name,
            consortium="hospitals",
            server="127.0.0.1:1",
            folder=tmp_path / name,
            identity=tmp_path / "identity",
            datasets=(DatasetSettings(name="screening"),),
            text_encoder=tmp_path / "text_encoder",
        )
        for name in ("central", "mayo")
    ]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Plan, Path | None, str]]:
    """Puts a site's app in place that returns an update of its own at once; gives what it was called with."""
    calls: list[tuple[Plan, Path | None, str]] = []

    def answer(message: Message, context: Context) -> Message:
        plan, state = plan_of(message)
        calls.append((plan, state, SiteSettings.model_validate_json(str(context.node_config["site"])).site))
        if state is None:
            return update_reply(message, Update(task_id=plan.task_id, payload=None, metrics=TOLD), None)
        assert reference_of(state) == plan.state, "the state that came is the plan's"
        if plan.kind == "evaluate":
            return update_reply(message, Update(task_id=plan.task_id, payload=None, metrics={"num_exams": 6.0}), None)
        path = state.parent / "result" / "update.safetensors"
        reference = small_state(path, 2.0)
        return update_reply(message, Update(task_id=plan.task_id, payload=reference, metrics=METRICS), path)

    app = ClientApp()
    app.train()(answer)
    app.evaluate()(answer)
    app.query()(answer)
    monkeypatch.setattr(ray_edge, "site_app", app)
    return calls


def _grid(tmp_path: Path, engine: Engine) -> RayGrid:
    become_flower_task()  # as the engine does for the coordinator
    return RayGrid(("central", "mayo"), SMALL_SPEC, tmp_path / "spool", engine, threading.Event())  # type: ignore[arg-type]


def _plan_message(tmp_path: Path, grid: RayGrid, site: str = "mayo", kind: str = "train") -> Message:
    state = small_state(tmp_path / "state.safetensors")
    return plan_message(make_plan(state, site, kind=kind), tmp_path / "state.safetensors", grid.node_of(site))


def test_an_update_comes_back_as_the_very_file_that_the_site_made(
    tmp_path: Path, sites: list[SiteSettings], trained: list[tuple[Plan, Path | None, str]]
) -> None:
    grid = _grid(tmp_path, Engine(edge_app(sites)))
    (reply,) = grid.send_and_receive([_plan_message(tmp_path, grid)])
    ((plan, state, called),) = trained
    assert called == "mayo", "node 311 is partition 1"
    assert reply.metadata.src_node_id == grid.node_of("mayo"), "the strategy knows our numbers, not the engine's"
    update, path = update_of(reply)
    assert update.metrics == METRICS
    assert path is not None and path.is_relative_to(tmp_path / "spool")
    made = visit_folder(sites[1], plan.task_id) / "result" / "update.safetensors"
    assert path.read_bytes() == made.read_bytes()
    assert not state.exists(), "it would come again with the plan"
    grid.forget([plan.task_id])
    assert not path.exists()


def test_each_plan_goes_to_its_own_site_and_replies_keep_their_order(
    tmp_path: Path, sites: list[SiteSettings], trained: list[tuple[Plan, Path | None, str]]
) -> None:
    grid = _grid(tmp_path, Engine(edge_app(sites)))
    replies = grid.send_and_receive([_plan_message(tmp_path, grid, site) for site in ("mayo", "central")])
    assert [(plan.site, called) for plan, _, called in trained] == [("mayo", "mayo"), ("central", "central")]
    assert [reply.metadata.src_node_id for reply in replies] == [2, 1]


def test_an_evaluation_brings_numbers_only(
    tmp_path: Path, sites: list[SiteSettings], trained: list[tuple[Plan, Path | None, str]]
) -> None:
    grid = _grid(tmp_path, Engine(edge_app(sites)))
    (reply,) = grid.send_and_receive([_plan_message(tmp_path, grid, kind="evaluate")])
    update, path = update_of(reply)
    assert (update.payload, path, update.metrics) == (None, None, {"num_exams": 6.0})


def test_a_query_brings_counts_and_no_weights_travel(
    tmp_path: Path, sites: list[SiteSettings], trained: list[tuple[Plan, Path | None, str]]
) -> None:
    replied: list[Message] = []
    grid = _grid(tmp_path, Engine(edge_app(sites), spoil=replied.append))
    plan = make_plan(None, "mayo", kind="query")
    (reply,) = grid.send_and_receive([plan_message(plan, None, grid.node_of("mayo"))])
    update, path = update_of(reply)
    assert (update.payload, path, update.metrics) == (None, None, TOLD)
    assert trained == [(plan, None, "mayo")]
    assert dict(replied[0].content.array_records) == {}
    assert not visit_folder(sites[1], plan.task_id).exists(), "there is no state to put into it"


def _count_a_person(reply: Message) -> None:
    reply.content.metric_records["metrics"]["num_images_by_vendor/jane-doe"] = 5.0


def test_counts_of_anything_else_are_refused_as_the_mailbox_would(
    tmp_path: Path, sites: list[SiteSettings], trained: list[tuple[Plan, Path | None, str]]
) -> None:
    grid = _grid(tmp_path, Engine(edge_app(sites), spoil=_count_a_person))
    query = plan_message(make_plan(None, "mayo", kind="query"), None, grid.node_of("mayo"))
    (reply,) = grid.send_and_receive([query])
    assert RefusalCode(reply.error.code) is RefusalCode.METRIC_NOT_ALLOWED


def _lose_weights(reply: Message) -> None:
    del reply.content[TENSORS]


def _change_weights(reply: Message) -> None:
    _other_value(reply.content.array_records[TENSORS])


def _add_metric(reply: Message) -> None:
    reply.content.metric_records["metrics"]["patients_seen"] = 3.0


def _not_finite(reply: Message) -> None:
    update, path = update_of(reply)
    assert update.payload is not None and path is not None
    bad = small_state(path, **{"layer.weight": np.full((4, 3), np.nan, np.float32)})
    reply.content.config_records["update"]["digest"] = bad.digest
    reply.content[TENSORS] = to_arrays(path)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_lose_weights, RefusalCode.MALFORMED_PAYLOAD),
        (_change_weights, RefusalCode.DIGEST_MISMATCH),
        (_add_metric, RefusalCode.METRIC_NOT_ALLOWED),
        (_not_finite, RefusalCode.NOT_FINITE),
    ],
)
def test_a_bad_update_is_refused_as_the_mailbox_would(
    tmp_path: Path,
    sites: list[SiteSettings],
    trained: list[tuple[Plan, Path | None, str]],
    spoil: Any,
    code: RefusalCode,
) -> None:
    grid = _grid(tmp_path, Engine(edge_app(sites), spoil=spoil))
    (reply,) = grid.send_and_receive([_plan_message(tmp_path, grid)])
    assert RefusalCode(reply.error.code) is code
    assert trained, "the site did its part"


def test_a_state_that_is_not_the_plans_never_reaches_the_site(
    tmp_path: Path, sites: list[SiteSettings], trained: list[tuple[Plan, Path | None, str]]
) -> None:
    grid = _grid(tmp_path, Engine(edge_app(sites)))
    message = _plan_message(tmp_path, grid)
    small_state(tmp_path / "state.safetensors", 9.0)
    (reply,) = grid.send_and_receive([message])
    assert RefusalCode(reply.error.code) is RefusalCode.DIGEST_MISMATCH
    assert trained == []


def test_an_error_of_the_engine_ends_the_run_and_is_no_failed_visit(tmp_path: Path, sites: list[SiteSettings]) -> None:
    died = Error(code=2, reason="<class 'ray.exceptions.ActorDiedError'>")
    assert RefusalCode(died.code) is RefusalCode.TENSOR_NAMES, "Flower's numbers overlap ours"
    grid = _grid(tmp_path, Engine(edge_app(sites), fails_with=died))
    with pytest.raises(RunStopped, match="site mayo"):
        grid.send_and_receive([_plan_message(tmp_path, grid)])


def test_a_code_of_the_site_is_a_failed_visit(tmp_path: Path, sites: list[SiteSettings]) -> None:
    refused = Error(code=RefusalCode.WORKER_DIED.value, reason=RefusalCode.WORKER_DIED.name)
    grid = _grid(tmp_path, Engine(edge_app(sites), fails_with=refused))
    (reply,) = grid.send_and_receive([_plan_message(tmp_path, grid)])
    assert RefusalCode(reply.error.code) is RefusalCode.WORKER_DIED


def test_a_stopped_engine_ends_the_wait_for_replies(tmp_path: Path, sites: list[SiteSettings]) -> None:
    stopped = threading.Event()
    stopped.set()
    become_flower_task()
    with pytest.raises(RunStopped, match="go on"):
        RayGrid(("central", "mayo"), SMALL_SPEC, tmp_path, Engine(edge_app(sites), nodes=()), stopped)  # type: ignore[arg-type]


def test_without_ray_the_message_says_how_to_install_it(
    tmp_path: Path, sites: list[SiteSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    settings = RunSettings.model_construct(sites=("central", "mayo"))
    with pytest.raises(ConfigurationError, match=r"pip install .*\[simulation\]"):
        simulate_on_ray(settings, sites)


def test_flowers_telemetry_is_off_wherever_a_package_of_ours_is_imported_first() -> None:
    assert telemetry.FLWR_TELEMETRY_ENABLED == "0"
