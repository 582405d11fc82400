"""The wire format: plans come through unchanged, and a site has no field in which text could leave."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from federation import make_plan, small_state
from mammofed_shared.config.pretrain import OptimizerSettings, PretrainSettings
from mammofed_shared.config.text_adaptation import TextSettings
from mammofed_shared.errors import ProtocolError
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.protocol.wire import CALLS, OLDEST_PROTOCOL, plan_from_wire, plan_to_wire, version_needed

GOLDEN = Path(__file__).parents[2] / "golden"
OLD_PROTO, OLD_SETTINGS = GOLDEN / "federation-2.proto", GOLDEN / "task-settings-2.json"
PROTO = Path(pb.__file__).with_name("federation.proto")
TEXT = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_GROUP)

TEXT_FROM_A_SITE = {
    # field: what the coordinator does with it
    "HelloRequest.software_contract": "compared with its own",
    "HelloRequest.site": "compared with the certificate",
    "HelloRequest.data": "matched against a SHA-256 in hexadecimal",
    "HelloRequest.code": "matched against a digest in hexadecimal",
    "Statement.previous": "matched against a SHA-256 in hexadecimal",
    "Statement.configuration": "compared with the run's",
    "Statement.code": "matched against a digest in hexadecimal",
    "Statement.data": "matched against a SHA-256 in hexadecimal",
    "Statement.state": "compared with the plan's",
    "Statement.update": "compared with the payload's digest",
    "Statement.metrics": "compared with the digest of the numbers",
    "Statement.ledger_head": "compared with the plan's",
    "Statement.signature": "a signature of at most 72 bytes, verified with the certificate's key",
    "PollRequest.task_id": "looked up among the open tasks",
    "FetchRequest.task_id": "looked up among the open tasks",
    "OffsetRequest.task_id": "looked up among the site's tasks",
    "FailRequest.task_id": "looked up among the site's tasks",
    "SubmitHeader.task_id": "looked up among the site's tasks",
    "Payload.digest": "matched against a SHA-256 in hexadecimal",
    "SubmitHeader.MetricsEntry.key": "looked up among the task's declared numbers, or the closed list of counts",
    "SubmitPart.data": "a payload: tensors of the plan, checked by name, shape, dtype and digest",
    "RenewRequest.certificate_request": "parsed as a certificate request of at most 4 KiB",
}
"""Every field of type string or bytes that a site can fill; whoever adds one says here why nothing can hide in it."""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(small_state(tmp_path / "state"))


def _texts(message: Descriptor, seen: set[str]) -> Iterator[str]:
    if message.full_name in seen:
        return
    seen.add(message.full_name)
    for field in message.fields:
        if field.type in TEXT:
            yield f"{message.full_name.removeprefix('mammofed.federation.v1.')}.{field.name}"
        if field.message_type is not None:
            yield from _texts(field.message_type, seen)


def test_a_site_can_say_text_in_listed_fields_only() -> None:
    seen: set[str] = set()
    found = {name for call in CALLS.values() for name in _texts(call.request.DESCRIPTOR, seen)}
    assert found == set(TEXT_FROM_A_SITE)


def test_the_calls_are_those_of_the_service() -> None:
    service = pb.DESCRIPTOR.services_by_name["Federation"]
    described = {
        method.name: (method.input_type.name, method.output_type.name, method.client_streaming, method.server_streaming)
        for method in service.methods
    }
    ours = {
        name: (call.request.DESCRIPTOR.name, call.reply.DESCRIPTOR.name, call.request_streams, call.reply_streams)
        for name, call in CALLS.items()
    }
    assert ours == described


def test_the_generated_module_is_that_of_the_proto_file(tmp_path: Path) -> None:
    from grpc_tools import protoc

    out = tmp_path / "descriptors"
    include = Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{PROTO.parent}", f"-I{include}", f"--descriptor_set_out={out}", PROTO.name]
    assert protoc.main(arguments) == 0
    compiled = FileDescriptorSet.FromString(out.read_bytes()).file[0]
    generated = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(generated)
    assert _plain(compiled) == _plain(generated)


def _plain(file: FileDescriptorProto) -> FileDescriptorProto:
    """Without what depends on how the compiler was called, not on the file."""
    file.ClearField("name")
    waiting: list[DescriptorProto] = list(file.message_type)
    while waiting:
        message = waiting.pop()
        waiting += message.nested_type
        for field in message.field:
            field.ClearField("json_name")
    return file


def test_the_type_stub_names_every_message_and_field() -> None:
    stub = PROTO.with_name("federation_pb2.pyi").read_text()
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        assert f"class {message.name}(" in stub
        for field in message.fields:
            assert f"    {field.name}: " in stub, f"{message.name}.{field.name}"


def test_a_plan_comes_off_the_wire_as_it_went_on(plan: Plan) -> None:
    for sent in (
        plan,
        plan.model_copy(update={"moments_from": "test/r0001/v00001/mayo/train", "epochs_before": 1}),
        plan.model_copy(update={"task": PretrainSettings(optimizer=OptimizerSettings(learning_rate=1 / 3))}),
        plan.model_copy(update={"task": TextSettings(masked_share=0.3)}),
        plan.model_copy(update={"encoder": "1" * 64}),
        make_plan(plan.state, site="central", kind="evaluate"),
        make_plan(None, site="central", kind="query"),
    ):
        assert plan_from_wire(pb.Plan.FromString(plan_to_wire(sent).SerializeToString())) == sent


def test_every_field_of_a_plan_is_on_the_wire(plan: Plan) -> None:
    on_wire = {field.name for field in pb.Plan.DESCRIPTOR.fields}
    assert on_wire - {"task_settings"} == set(Plan.model_fields) - {"task"}


UNKNOWN_TO_VERSION_2 = {
    # field: what happens when a site of version 2 does not see it
    "configuration": "nothing: it has no policy that could ask",
    "rounds_total": "nothing",
    "num_sites": "nothing",
    "ledger_head": "nothing: it signs no statement",
    "proximal_mu": "another training, so the plan needs version 3",
    "control_variates": "another training, so the plan needs version 3",
    "download": "it could not read the state, so the plan needs version 3",
    "upload": "it would send another update, so the plan needs version 3",
    "encoder": "no features to read, so the plan needs version 3",
}


def test_whoever_adds_a_field_to_a_plan_says_what_a_site_of_version_2_makes_of_it(plan: Plan, tmp_path: Path) -> None:
    from grpc_tools import protoc

    out = tmp_path / "descriptors"
    assert protoc.main(["protoc", f"-I{OLD_PROTO.parent}", f"--descriptor_set_out={out}", OLD_PROTO.name]) == 0
    (old,) = FileDescriptorSet.FromString(out.read_bytes()).file
    known = {field.name for message in old.message_type if message.name == "Plan" for field in message.field}
    assert {field.name for field in pb.Plan.DESCRIPTOR.fields} - known == set(UNKNOWN_TO_VERSION_2)
    assert version_needed(plan) == OLDEST_PROTOCOL
    changes = {"proximal_mu": 0.1, "control_variates": True, "download": "bf16", "upload": "delta", "encoder": "1" * 64}
    assert set(changes) == {name for name, said in UNKNOWN_TO_VERSION_2.items() if "version 3" in said}
    for name, value in changes.items():
        assert version_needed(plan.model_copy(update={name: value})) == 3


@pytest.mark.parametrize("number", [0, 1], ids=["pretrain", "text"])
def test_a_site_of_version_2_knows_every_setting_of_a_task(number: int) -> None:
    """It refuses settings that it does not know: a new one must not be sent while it has its default, or needs 3."""
    told = (PretrainSettings(), TextSettings())[number].model_dump(mode="json")
    assert _keys(told) == _keys(json.loads(OLD_SETTINGS.read_text())[number])


def _keys(value: object) -> object:
    return {name: _keys(item) for name, item in value.items()} if isinstance(value, dict) else None


def test_a_setting_that_this_version_does_not_know_is_refused(plan: Plan) -> None:
    wire = plan_to_wire(plan)
    values = json.loads(wire.task_settings)
    values["optimizer"]["sharpness"] = 1
    wire.task_settings = json.dumps(values)
    with pytest.raises(ProtocolError, match="sharpness"):
        plan_from_wire(wire)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task_id", "test/r0001/v00001/../train"),
        ("task_id", "/etc/passwd"),
        ("task_id", ""),
        ("site", "../mayo"),
        ("run", "Test"),
        ("kind", pb.KIND_UNSPECIFIED),
        ("kind", 17),
        ("epochs_total", 0),
        ("preprocessing", "0" * 63),
        ("text_encoder", "Z" * 64),
        ("text_encoder", ""),
        ("encoder", "Z" * 64),
        ("task_settings", ""),
        ("task_settings", '{"name": "strange"}'),
        ("task_settings", "[" * 10_000),
    ],
)
def test_a_plan_that_is_not_allowed_is_refused(plan: Plan, field: str, value: object) -> None:
    wire = plan_to_wire(plan)
    setattr(wire, field, value)
    with pytest.raises(ProtocolError):
        plan_from_wire(wire)


def test_a_visit_without_a_state_and_a_query_with_one_are_refused(plan: Plan) -> None:
    visit = plan_to_wire(plan)
    visit.ClearField("state")
    query = plan_to_wire(make_plan(None, kind="query"))
    assert not query.HasField("state")
    query.state.CopyFrom(plan_to_wire(plan).state)
    for wire in (visit, query):
        with pytest.raises(ProtocolError, match="a visit starts from one, a query has none"):
            plan_from_wire(wire)


def test_a_state_whose_digest_is_none_is_refused(plan: Plan) -> None:
    wire = plan_to_wire(plan)
    wire.state.digest = ""
    with pytest.raises(ProtocolError, match="digest"):
        plan_from_wire(wire)
