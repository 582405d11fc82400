"""Plans as protobuf, and the names and limits of the calls between a site and the coordinator."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mammofed_shared.config.tasks import TaskSettings
from mammofed_shared.errors import ProtocolError
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.plan import Encoding, PayloadReference, Plan
from mammofed_shared.revision import software_version

PROTOCOL_VERSION = 3
OLDEST_PROTOCOL = 2
"""Sites of the version before are served, with plans that they understand (``version_needed``)."""
SOFTWARE_CONTRACT = "mammofed-1"
"""Changes whenever two versions of the code could compute different weights from the same plan."""

SERVICE = "mammofed.federation.v1.Federation"
CHUNK_BYTES = 252 * 2**10
"""Bytes of one chunk. A message stays under 256 KiB: protobuf's encoder doubles its buffer, and beyond that size writes
each message into freshly mapped memory (2.9 ms CPU for one of 1 MiB, 0.02 ms for one of 252 KiB)."""
MAX_MESSAGE_BYTES = 4 * 2**20
LONG_POLL_S = 20
UPGRADE_SITE = f"upgrade the site: pip install mammofed=={software_version()}"


@dataclass(frozen=True, slots=True)
class Call:
    """One method of the service: its message types, and which side streams."""

    request: Any
    reply: Any
    request_streams: bool = False
    reply_streams: bool = False


CALLS = MappingProxyType(
    {
        "Hello": Call(pb.HelloRequest, pb.HelloReply),
        "Poll": Call(pb.PollRequest, pb.PollReply),
        "Fetch": Call(pb.FetchRequest, pb.Chunk, reply_streams=True),
        "Offset": Call(pb.OffsetRequest, pb.OffsetReply),
        "Submit": Call(pb.SubmitPart, pb.SubmitReply, request_streams=True),
        "Fail": Call(pb.FailRequest, pb.FailReply),
        "Renew": Call(pb.RenewRequest, pb.RenewReply),
    }
)
"""The service of federation.proto, for grpc's generic handlers and callables (so no untyped stub is generated)."""


def upgrade_words(protocol_version: int, software_contract: str) -> str:
    """Why a site of this version cannot take part here and what to do; empty when it can."""
    here = f"{OLDEST_PROTOCOL} or {PROTOCOL_VERSION} here"
    if protocol_version < OLDEST_PROTOCOL:
        return f"protocol version {protocol_version} at the site, {here}: {UPGRADE_SITE}"
    if protocol_version > PROTOCOL_VERSION:
        return (
            f"protocol version {protocol_version} at the site, {here}: ask the lead to upgrade the coordinator, or "
            f"install its version: pip install mammofed=={software_version()}"
        )
    if software_contract != SOFTWARE_CONTRACT:
        return f"software of another contract at the site, {SOFTWARE_CONTRACT!r} here: {UPGRADE_SITE}"
    return ""


def version_needed(plan: Plan) -> int:
    """The oldest protocol version whose sites can carry out a plan: version 2 ignores fields that it does not know."""
    is_plain = not plan.proximal_mu and not plan.control_variates and plan.download == plan.upload == "fp32"
    return OLDEST_PROTOCOL if is_plain and plan.encoder is None else PROTOCOL_VERSION


_KIND_TO_WIRE = {"train": pb.TRAIN, "evaluate": pb.EVALUATE, "query": pb.QUERY}
_KIND_FROM_WIRE = {wire: kind for kind, wire in _KIND_TO_WIRE.items()}
_ENCODING_TO_WIRE = {"fp32": pb.FP32, "bf16": pb.BF16, "delta": pb.DELTA}
_ENCODING_FROM_WIRE: dict[pb.Encoding, Encoding] = {pb.FP32: "fp32", pb.BF16: "bf16", pb.DELTA: "delta"}
_task_settings: TypeAdapter[TaskSettings] = TypeAdapter(TaskSettings)


def plan_to_wire(plan: Plan) -> pb.Plan:
    """The protobuf form of a plan."""
    return pb.Plan(
        task_id=plan.task_id,
        run=plan.run,
        round=plan.round,
        visit=plan.visit,
        site=plan.site,
        kind=_KIND_TO_WIRE[plan.kind],
        epochs=plan.epochs,
        epochs_before=plan.epochs_before,
        epochs_total=plan.epochs_total,
        seed=plan.seed,
        moments_from=plan.moments_from or "",
        task_settings=plan.task.model_dump_json(),
        preprocessing=plan.preprocessing,
        text_encoder=plan.text_encoder or "",
        state=pb.Payload(digest=plan.state.digest, size=plan.state.size) if plan.state is not None else None,
        configuration=plan.configuration,
        rounds_total=plan.rounds_total,
        num_sites=plan.num_sites,
        proximal_mu=plan.proximal_mu,
        control_variates=plan.control_variates,
        download=_ENCODING_TO_WIRE[plan.download],
        upload=_ENCODING_TO_WIRE[plan.upload],
        ledger_head=plan.ledger_head or "",
        encoder=plan.encoder or "",
    )


def plan_from_wire(wire: pb.Plan) -> Plan:
    """The plan in a protobuf message, validated.

    Raises:
        ProtocolError: a field is not what ``Plan`` allows; a setting is unknown to this version of the software.
    """
    try:
        return Plan(
            task_id=wire.task_id,
            run=wire.run,
            round=wire.round,
            visit=wire.visit,
            site=wire.site,
            kind=_KIND_FROM_WIRE[wire.kind],
            epochs=wire.epochs,
            epochs_before=wire.epochs_before,
            epochs_total=wire.epochs_total,
            seed=wire.seed,
            moments_from=wire.moments_from or None,
            task=_task_settings.validate_json(wire.task_settings),
            preprocessing=wire.preprocessing,
            text_encoder=wire.text_encoder or None,
            state=_state(wire),
            configuration=wire.configuration,
            rounds_total=wire.rounds_total,
            num_sites=wire.num_sites,
            proximal_mu=wire.proximal_mu,
            control_variates=wire.control_variates,
            download=_ENCODING_FROM_WIRE[wire.download],
            upload=_ENCODING_FROM_WIRE[wire.upload],
            ledger_head=wire.ledger_head or None,
            encoder=wire.encoder or None,
        )
    except (ValidationError, KeyError) as error:
        raise ProtocolError(f"a plan of the coordinator is not allowed here: {error}") from error


def _state(wire: pb.Plan) -> PayloadReference | None:
    return PayloadReference(digest=wire.state.digest, size=wire.state.size) if wire.HasField("state") else None
