"""The gate: every message of the protocol has its rules, and what has none, or breaks one, does not become bytes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, NameOID
from google.protobuf.descriptor import Descriptor

import what_leaves
from federation import METRICS, coordinator, make_plan, small_state
from identities import make_consortium
from mammofed_shared.pki import make_key
from mammofed_shared.pki.keys import make_request
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.plan import Update
from mammofed_shared.protocol.statement import metrics_digest
from mammofed_shared.protocol.wire import CALLS, CHUNK_BYTES, PROTOCOL_VERSION, SOFTWARE_CONTRACT
from mammofed_site.audit import Audit
from mammofed_site.gate import Gate, HeldBack
from mammofed_site.link import Link
from mammofed_site.wire_rules import rules_of

MRN = "MRN-48151623"
TASK = "test/r0001/v00001/mayo/train"
CSR = make_request(make_key())


def _request(
    name: str = "mammofed request",
    uri: str | None = None,
    challenge: bytes | None = None,
    key: CertificateIssuerPrivateKeyTypes | None = None,
) -> bytes:
    """A certificate request that is well signed and says more than a key."""
    builder = x509.CertificateSigningRequestBuilder()
    builder = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []))
    if uri is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=False)
    if challenge is not None:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge)
    return builder.sign(key or make_key(), hashes.SHA256()).public_bytes(Encoding.PEM)


def _fields(message: Descriptor, seen: set[str]) -> Iterator[tuple[str, str]]:
    if message.name in seen or message.GetOptions().map_entry:
        return
    seen.add(message.name)
    for field in message.fields:
        yield message.name, field.name
        if field.message_type is not None:
            yield from _fields(field.message_type, seen)


def test_each_field_that_a_site_can_fill_has_a_rule_and_no_rule_is_left_over() -> None:
    seen: set[str] = set()
    found = {pair for call in CALLS.values() for pair in _fields(call.request.DESCRIPTOR, seen)}
    assert found == {(message, field) for message, rules in rules_of("mayo").items() for field in rules}


def test_the_document_tells_the_gates_own_rules() -> None:
    text = what_leaves.DOCUMENT.read_text(encoding="utf-8")
    assert text == what_leaves.with_table(text), "run `python tests/what_leaves.py`"


def _right() -> list[Any]:
    return [
        pb.HelloRequest(
            protocol_version=PROTOCOL_VERSION,
            software_contract=SOFTWARE_CONTRACT,
            site="mayo",
            num_training_exams=8,
            num_test_exams=6,
            data="0" * 64,
            code="0" * 64,
        ),
        pb.PollRequest(state=pb.READY, wait_s=20),
        pb.PollRequest(state=pb.TRAINING, task_id=TASK, epoch=1, step=2, num_steps=3, loss=0.5, samples_per_s=4.0),
        pb.PollRequest(state=pb.VETOED),
        pb.FetchRequest(task_id=TASK, offset=7),
        pb.OffsetRequest(task_id=TASK),
        pb.FailRequest(task_id=TASK, refusal_code=19),
        pb.RenewRequest(certificate_request=CSR),
    ]


def test_what_a_site_has_to_say_comes_through_as_it_is() -> None:
    for message in _right():
        assert Gate("mayo").serialize(message) == message.SerializeToString()


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.HelloRequest(protocol_version=PROTOCOL_VERSION, software_contract=MRN, site="mayo"), "software_contract"),
        (pb.PollRequest(state=pb.READY, task_id=MRN), "task_id"),
        (pb.PollRequest(state=pb.READY, task_id="test/r0001/v00001/upmc/train"), "task_id"),
        (pb.PollRequest(state=pb.READY, loss=float("nan")), "loss"),
        (pb.PollRequest(state=pb.READY, loss=4815.1623), "loss"),
        (pb.PollRequest(state=99), "state"),  # type: ignore[arg-type]
        (pb.PollRequest(), "state"),
        (pb.FetchRequest(task_id="../../etc/passwd"), "task_id"),
        (pb.OffsetRequest(task_id=""), "task_id"),
        (pb.FailRequest(task_id=TASK, refusal_code=4711), "refusal_code"),
        (pb.RenewRequest(certificate_request=CSR + MRN.encode()), "certificate_request"),
        (pb.RenewRequest(certificate_request=MRN.encode() + b"\n" + CSR), "certificate_request"),
        (pb.RenewRequest(certificate_request=_request(MRN)), "certificate_request"),
        (pb.RenewRequest(certificate_request=_request("")), "certificate_request"),
        (pb.RenewRequest(certificate_request=_request(uri=f"spiffe://{MRN}/site/mayo")), "certificate_request"),
        (pb.RenewRequest(certificate_request=_request(challenge=MRN.encode())), "certificate_request"),
        (pb.RenewRequest(certificate_request=_request(key=ec.generate_private_key(ec.SECP384R1()))), "certificate_re"),
        (pb.RenewRequest(certificate_request=CSR.replace(b"\n", MRN.encode() + b"\n", 1)), "certificate_request"),
        (pb.PollRequest.FromString(b"\x08\x01\xaa\x06" + bytes([len(MRN)]) + MRN.encode()), "a field"),
        (pb.Chunk(data=MRN.encode()), "Chunk"),
        (pb.SubmitPart(data=MRN.encode()), "data"),
        (pb.SubmitPart(header=pb.SubmitHeader(task_id=TASK, metrics=METRICS)), "SubmitPart"),
    ],
)
def test_what_breaks_a_rule_is_held_back_and_stands_in_the_audit_without_what_it_held(
    tmp_path: Path, message: Any, field: str
) -> None:
    gate = Gate("mayo", Audit(tmp_path))
    with pytest.raises(HeldBack, match=field) as caught:
        gate.serialize(message)
    (event,) = map(json.loads, (tmp_path / "audit.jsonl").read_text().splitlines())
    assert (event["event"], event["what"], event["times"]) == ("held back", str(caught.value), 1)
    assert MRN not in (tmp_path / "audit.jsonl").read_text()


def test_the_audit_counts_what_is_held_back_again_and_again(tmp_path: Path) -> None:
    gate = Gate("mayo", Audit(tmp_path))
    for _ in range(120):
        with pytest.raises(HeldBack):
            gate.serialize(pb.PollRequest())
    events = map(json.loads, (tmp_path / "audit.jsonl").read_text().splitlines())
    assert [event["times"] for event in events] == [1, 10, 100]


# ── an update ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def update(tmp_path: Path) -> Update:
    return Update(task_id=TASK, payload=small_state(tmp_path / "update", 2.0), metrics=METRICS)


def _header(update: Update, **changes: Any) -> Any:
    assert update.payload is not None
    payload = pb.Payload(digest=update.payload.digest, size=update.payload.size)
    values = {"task_id": update.task_id, "metrics": update.metrics, "payload": payload}
    return pb.SubmitPart(header=pb.SubmitHeader(**{**values, **changes}))


def test_a_released_update_leaves_from_any_byte_on(tmp_path: Path, update: Update) -> None:
    gate = Gate("mayo")
    gate.open_for(update, tmp_path / "update")
    data = (tmp_path / "update").read_bytes()
    for offset in (0, 10):
        with gate.passage() as passage:
            parts = [_header(update, offset=offset), pb.SubmitPart(data=data[offset:40]), pb.SubmitPart(data=data[40:])]
            assert [passage.serialize(part) for part in parts] == [part.SerializeToString() for part in parts]
    assert gate.num_sent == len(data)


SIGNATURE = make_key().sign(b"a statement", ec.ECDSA(hashes.SHA256()))


def _statement(update: str = "", **changes: Any) -> Any:
    digests = dict.fromkeys(("configuration", "code", "data", "state"), "1" * 64)
    values = {**digests, "metrics": metrics_digest(METRICS), "update": update, "signature": SIGNATURE}
    return pb.Statement(**{**values, **changes})


def test_a_statement_leaves_with_what_it_is_about_also_when_the_visit_is_sent_again(
    tmp_path: Path, update: Update
) -> None:
    gate = Gate("mayo")
    gate.open_for(update.model_copy(update={"metrics": {**METRICS, "duration_s": 7.0}}), tmp_path / "update")
    first = {**METRICS, "duration_s": 5.0}
    assert update.payload is not None
    with gate.passage() as passage:
        said = _statement(update.payload.digest, metrics=metrics_digest(first))
        assert passage.serialize(_header(update, metrics=first, statement=said))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task_id": "test/r0001/v00002/mayo/train"}, "nothing was released for it"),
        ({"metrics": {**METRICS, "mrn-48151623": 1.0}}, "not the numbers that were released"),
        ({"metrics": {**METRICS, "loss": 48151623.0}}, "not the numbers that were released"),
        ({"metrics": {MRN: 1.0}}, "not the released numbers"),
        ({"payload": pb.Payload(digest="0" * 64, size=1)}, "not the file that was released"),
        ({"payload": pb.Payload(digest=MRN, size=1)}, "Payload.digest"),
        ({"payload": None}, "not the file that was released"),
        ({"statement": _statement(code=MRN)}, "Statement.code"),
        ({"statement": _statement(signature=MRN.encode())}, "Statement.signature"),
        ({"statement": _statement(filters=[pb.Filter(kind="CLIPPED", value=1.0)] * 17)}, "filters: more than 16"),
        ({"statement": _statement(filters=[pb.Filter(kind="CLIPPED", value=float("inf"))])}, "Filter.value"),
        ({"statement": _statement(update="0" * 64)}, "Statement.update: not the file"),
        ({"statement": _statement(metrics="0" * 64)}, "Statement.metrics: not the numbers"),
    ],
)
def test_a_header_says_what_was_released_and_nothing_else(
    tmp_path: Path, update: Update, changes: dict[str, Any], said: str
) -> None:
    gate = Gate("mayo")
    gate.open_for(update, tmp_path / "update")
    with gate.passage() as passage, pytest.raises(HeldBack, match=said):
        passage.serialize(_header(update, **changes))


@pytest.mark.parametrize("data", [MRN.encode(), b"", b"x" * (CHUNK_BYTES + 1)])
def test_bytes_of_anything_but_the_released_file_do_not_leave(tmp_path: Path, update: Update, data: bytes) -> None:
    gate = Gate("mayo")
    gate.open_for(update, tmp_path / "update")
    with gate.passage() as passage:
        passage.serialize(_header(update))
        with pytest.raises(HeldBack, match=r"SubmitPart\.data"):
            passage.serialize(pb.SubmitPart(data=data))
    assert gate.num_sent == 0


def test_bytes_leave_once_in_their_order_and_after_a_header(tmp_path: Path, update: Update) -> None:
    gate = Gate("mayo")
    gate.open_for(update, tmp_path / "update")
    first, second = (pb.SubmitPart(data=(tmp_path / "update").read_bytes()[at : at + 8]) for at in (0, 8))
    for wrong in ([first], [_header(update), second], [_header(update), first, first], [_header(update)] * 2):
        with gate.passage() as passage:
            for part in wrong[:-1]:
                passage.serialize(part)
            with pytest.raises(HeldBack):
                passage.serialize(wrong[-1])


def test_a_file_that_changed_since_it_was_released_does_not_leave(tmp_path: Path, update: Update) -> None:
    gate = Gate("mayo")
    gate.open_for(update, tmp_path / "update")
    data = (tmp_path / "update").read_bytes()
    with gate.passage() as passage:
        passage.serialize(_header(update))
        (tmp_path / "update").write_bytes(data[:-1] + b"x")
        with pytest.raises(HeldBack, match="has changed since it was released"):
            passage.serialize(pb.SubmitPart(data=data[:8]))


def test_nothing_of_an_update_leaves_when_the_gate_was_closed(tmp_path: Path, update: Update) -> None:
    gate = Gate("mayo")
    gate.open_for(update, tmp_path / "update")
    gate.close()
    with gate.passage() as passage, pytest.raises(HeldBack, match="nothing was released"):
        passage.serialize(_header(update))


def test_a_link_says_what_was_held_back_and_the_coordinator_hears_nothing(tmp_path: Path) -> None:
    consortium = make_consortium(tmp_path / "consortium", ["mayo"])
    plan = make_plan(small_state(tmp_path / "state"))
    reference = small_state(tmp_path / "update", 2.0)
    right = Update(task_id=plan.task_id, payload=reference, metrics=METRICS)
    with coordinator(tmp_path / "spool", consortium, sites=("mayo",)) as server:
        server.mailbox.put(plan, tmp_path / "state")
        link = Link("mayo", f"127.0.0.1:{server.port}", consortium.site_identity("mayo"))
        with pytest.raises(HeldBack, match="nothing was released for it"):
            link.submit(right, tmp_path / "update")
        link.gate.open_for(right, tmp_path / "update")
        with pytest.raises(HeldBack, match="not the numbers"):
            link.submit(right.model_copy(update={"metrics": {**METRICS, "patient_4711": 1.0}}), tmp_path / "update")
        with pytest.raises(HeldBack, match=r"PollRequest\.loss"):
            link.poll(pb.PollRequest(state=pb.READY, loss=0.123456))
        assert link.poll_once(pb.PollRequest(state=pb.READY, loss=0.123456)) is None
        assert server.mailbox.outcome(plan.task_id) is None
        assert link.submit(right, tmp_path / "update") is None
        link.close()


def test_of_an_upload_that_has_ended_nothing_leaves_and_nothing_is_held_against_it(
    tmp_path: Path, update: Update
) -> None:
    """grpc's thread may ask for one more part of a call that was cut, when the file is closed already."""
    gate = Gate("mayo", Audit(tmp_path))
    gate.open_for(update, tmp_path / "update")
    with gate.passage() as passage:
        passage.serialize(_header(update))
    part = pb.SubmitPart(data=(tmp_path / "update").read_bytes()[:8])

    assert passage.serialize(part) == b""
    gate.raise_if_held()
    assert not (tmp_path / "audit.jsonl").exists()
