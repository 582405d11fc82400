"""Plans and updates as Flower messages, and the one place where Flower's internals are touched.

A message carries digests, paths on this machine and numbers; weights stay in files. Flower's ``ArrayRecord`` appears
only where its own simulation engine must carry them between machines (``mammofed_simulation.ray_edge``).
"""

from pathlib import Path
from typing import cast

from flwr.app import ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from pydantic import TypeAdapter

from mammofed_shared.errors import RefusalCode
from mammofed_shared.protocol.plan import PayloadReference, Plan, Update
from mammofed_shared.protocol.statement import Countersigned, Filter

_MESSAGE_TYPES = {"train": MessageType.TRAIN, "evaluate": MessageType.EVALUATE, "query": MessageType.QUERY}
_filters: TypeAdapter[tuple[Filter, ...]] = TypeAdapter(tuple[Filter, ...])


def become_flower_task(node_id: int = 1) -> None:
    """Let this process create Flower messages.

    Flower's launcher sets these; without it ``Message()`` raises. Internal to Flower 1.41, held by
    tests/shared/protocol/test_flower.py.
    """
    TaskIdentity.run_id = 1
    TaskIdentity.node_id = node_id
    TaskIdentity.task_id = 1


def plan_message(plan: Plan, state: Path | None, node_id: int, base: Path | None = None) -> Message:
    """The message that asks a site for a visit; ``state`` is the state's file on this machine, None for a query.

    ``base`` is the whole state at the coordinator, where ``state`` is its encoded form.
    """
    record = ConfigRecord({"plan": plan.model_dump_json()})
    if state is not None:
        record["state"] = str(state)
    if base is not None:
        record["base"] = str(base)
    return Message(content=RecordDict({"plan": record}), dst_node_id=node_id, message_type=_MESSAGE_TYPES[plan.kind])


def plan_of(message: Message) -> tuple[Plan, Path | None]:
    """The plan and the state's file in a message made by ``plan_message``."""
    record = message.content.config_records["plan"]
    state = Path(cast(str, record["state"])) if "state" in record else None
    return Plan.model_validate_json(cast(str, record["plan"])), state


def base_of(message: Message) -> Path | None:
    """The whole state, to which the difference in an update is added: the state itself unless that is encoded."""
    record = message.content.config_records["plan"]
    path = record.get("base", record.get("state"))
    return Path(cast(str, path)) if path is not None else None


def update_reply(message: Message, update: Update, path: Path | None) -> Message:
    """The reply that brings an update; ``path`` is its payload's file on this machine."""
    record = ConfigRecord({"task": update.task_id, "filters": _filters.dump_json(update.filters).decode()})
    if update.signed is not None:
        record["signed"] = update.signed.model_dump_json()
    if update.payload is not None and path is not None:
        record["digest"], record["size"], record["path"] = (
            update.payload.digest,
            update.payload.size,
            str(path),
        )
    if update.decoded is not None:
        record["decoded_digest"], record["decoded_size"] = update.decoded.digest, update.decoded.size
    return Message(RecordDict({"update": record, "metrics": MetricRecord(dict(update.metrics))}), reply_to=message)


def refusal_reply(message: Message, code: RefusalCode) -> Message:
    """The reply of a visit that brings nothing: a code, and no words but its name."""
    return Message(Error(code=code.value, reason=code.name), reply_to=message)


def update_of(reply: Message) -> tuple[Update, Path | None]:
    """The update in a reply made by ``update_reply``, and its payload's file."""
    record = reply.content.config_records["update"]
    metrics = {name: cast(float, value) for name, value in reply.content.metric_records["metrics"].items()}
    update = Update(
        task_id=cast(str, record["task"]),
        payload=None,
        metrics=metrics,
        decoded=_reference(record, "decoded_") if "decoded_digest" in record else None,
        filters=_filters.validate_json(cast(str, record["filters"])),
        signed=Countersigned.model_validate_json(cast(str, record["signed"])) if "signed" in record else None,
    )
    if "digest" not in record:
        return update, None
    return update.model_copy(update={"payload": _reference(record, "")}), Path(cast(str, record["path"]))


def _reference(record: ConfigRecord, prefix: str) -> PayloadReference:
    digest, size = record[f"{prefix}digest"], record[f"{prefix}size"]
    return PayloadReference(digest=cast(str, digest), size=cast(int, size))
