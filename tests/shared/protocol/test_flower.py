"""Plans and updates as Flower messages; and the contract of the one internal of Flower that we touch."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from federation import METRICS, make_plan, small_state
from mammofed_shared.errors import RefusalCode
from mammofed_shared.protocol.flower import (
    become_flower_task,
    plan_message,
    plan_of,
    refusal_reply,
    update_of,
    update_reply,
)
from mammofed_shared.protocol.plan import Plan, Update

IDENTITY = """
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
try:
    Message(RecordDict(), dst_node_id=2, message_type="train")
except RuntimeError as error:
    print("without:", error)
from mammofed_shared.protocol.flower import become_flower_task
become_flower_task(node_id=7)
message = Message(RecordDict(), dst_node_id=2, message_type="train")
print("with:", message.metadata.run_id, message.metadata.src_node_id, message.metadata.dst_node_id)
"""


@pytest.fixture
def message(tmp_path: Path) -> Message:
    become_flower_task(node_id=1)
    return plan_message(make_plan(small_state(tmp_path / "state")), tmp_path / "state", node_id=2)


def test_flower_is_the_version_whose_internal_we_know() -> None:
    assert version("flwr").startswith("1.41.")


def test_flower_makes_messages_only_for_a_process_with_an_identity() -> None:
    """If the first line fails, Flower no longer asks for an identity and ``become_flower_task`` can go."""
    said = subprocess.run([sys.executable, "-c", IDENTITY], capture_output=True, text=True, check=True, timeout=120)
    first, second = said.stdout.splitlines()
    assert first.startswith("without: TaskIdentity.") and first.endswith("is not set.")
    assert second == "with: 1 7 2"


@pytest.mark.parametrize(("kind", "message_type"), [("train", MessageType.TRAIN), ("evaluate", MessageType.EVALUATE)])
def test_a_plan_comes_out_of_its_message_as_it_went_in(tmp_path: Path, kind: str, message_type: str) -> None:
    become_flower_task()
    plan = make_plan(small_state(tmp_path / "state"), kind=kind)
    message = plan_message(plan, tmp_path / "state", node_id=3)
    assert plan_of(message) == (plan, tmp_path / "state")
    assert message.metadata.message_type == message_type
    assert message.metadata.dst_node_id == 3


def test_a_query_comes_out_of_its_message_without_a_state() -> None:
    become_flower_task()
    plan = make_plan(None, kind="query")
    message = plan_message(plan, None, node_id=3)
    assert plan_of(message) == (plan, None)
    assert message.metadata.message_type == MessageType.QUERY


def test_an_update_comes_out_of_its_reply_as_it_went_in(tmp_path: Path, message: Message) -> None:
    plan, _ = plan_of(message)
    update = Update(task_id=plan.task_id, payload=small_state(tmp_path / "update", 2.0), metrics=METRICS)
    reply = update_reply(message, update, tmp_path / "update")
    assert update_of(reply) == (update, tmp_path / "update")
    assert reply.metadata.src_node_id == 2, "the strategy finds the site by this"
    assert not reply.has_error()


def test_an_evaluations_reply_brings_numbers_and_no_file(message: Message) -> None:
    update = Update(task_id="test/r0001/v00001/mayo/evaluate", payload=None, metrics={"auroc/mass": 0.75})
    assert update_of(update_reply(message, update, None)) == (update, None)


def test_weights_stay_out_of_messages(tmp_path: Path, message: Message) -> None:
    update = Update(task_id="t", payload=small_state(tmp_path / "update", 2.0), metrics=METRICS)
    for each in (message, update_reply(message, update, tmp_path / "update")):
        assert dict(each.content.array_records) == {}


def test_a_refusal_says_its_code_and_no_words(message: Message) -> None:
    for code in RefusalCode:
        reply = refusal_reply(message, code)
        assert reply.has_error() and reply.metadata.src_node_id == 2
        assert (reply.error.code, reply.error.reason) == (code.value, code.name)


def test_a_plan_that_is_not_allowed_is_not_read(tmp_path: Path, message: Message) -> None:
    plan: Plan = plan_of(message)[0]
    text = plan.model_dump_json().replace('"epochs":1', '"epochs":1,"command":"rm"')
    record = ConfigRecord({"plan": text, "state": str(tmp_path)})
    strange = Message(RecordDict({"plan": record}), dst_node_id=1, message_type=MessageType.TRAIN)
    with pytest.raises(ValueError, match="command"):
        plan_of(strange)
