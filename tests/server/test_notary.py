"""The coordinator countersigns what a site states only where it is what the coordinator knows."""

import base64
from pathlib import Path
from typing import Any

import pytest

from federation import METRICS, make_plan, small_state
from identities import Consortium, make_consortium
from mammofed_server import ca
from mammofed_server.mailbox import Upload
from mammofed_server.notary import Notary
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.pki import Identity, read_certificates
from mammofed_shared.pki.signature import RECEIPT, is_signed
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.plan import Plan, Update
from mammofed_shared.protocol.statement import Filter, Signed, statement_to_wire
from mammofed_site import enrol
from mammofed_site.ledger import SiteLedger
from small_counts import TOLD

HEAD = "9" * 64


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path / "consortium", ["central", "mayo"])


@pytest.fixture
def notary(tmp_path: Path, consortium: Consortium) -> Notary:
    return Notary(tmp_path / "certificates", consortium.name, consortium.server_identity)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(small_state(tmp_path / "state")).model_copy(update={"ledger_head": HEAD})


@pytest.fixture
def update(tmp_path: Path, plan: Plan) -> Update:
    return Update(task_id=plan.task_id, payload=small_state(tmp_path / "update", 2.0), metrics=METRICS)


def _calls_as(identity: Identity) -> dict[str, list[bytes]]:
    """What grpc says of a connection."""
    pems = [part + b"-----END CERTIFICATE-----\n" for part in identity.chain_pem.split(b"-----END CERTIFICATE-----\n")]
    return {"x509_pem_cert": pems[:1], "x509_pem_cert_chain": pems[1:-1]}


def _state(folder: Path, identity: Identity, plan: Plan, update: Update) -> Signed:
    return SiteLedger(folder, lambda: identity).state(plan, update, "d" * 64)


def _upload(update: Update) -> Upload:
    return Upload(update.task_id, update.payload, update.metrics, 0)


@pytest.mark.parametrize("kind", ["train", "evaluate", "query"])
def test_a_true_statement_is_countersigned(tmp_path: Path, consortium: Consortium, notary: Notary, kind: str) -> None:
    state = small_state(tmp_path / "state") if kind != "query" else None
    plan = make_plan(state, kind=kind).model_copy(update={"ledger_head": HEAD})
    metrics = {"train": METRICS, "evaluate": {"auroc/mass": 0.5}, "query": dict(TOLD)}[kind]
    payload = small_state(tmp_path / "update", 2.0) if kind == "train" else None
    update = Update(task_id=plan.task_id, payload=payload, metrics=metrics)
    mayo = consortium.site_identity("mayo")
    signed = _state(tmp_path / "mayo", mayo, plan, update)
    found = notary.confirm(plan, _upload(update), statement_to_wire(signed), _calls_as(mayo))
    assert found is not None
    assert (found.statement, found.signature, found.certificate) == (
        signed.statement,
        signed.signature,
        signed.certificate,
    )
    (server,) = read_certificates(notary.chain_pem(found.receipt_certificate), "server")
    assert is_signed(server, RECEIPT, signed.statement.digest.encode(), found.receipt)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("configuration", "1" * 64),
        ("state", "1" * 64),
        ("state", None),
        ("update", "1" * 64),
        ("update", None),
        ("metrics", "1" * 64),
        ("num_exams", 11),
        ("ledger_head", "1" * 64),
        ("ledger_head", None),
        ("filters", (Filter(kind="encoded-delta"),)),
    ],
)
def test_a_statement_that_is_false_in_one_field_is_refused(
    tmp_path: Path, consortium: Consortium, notary: Notary, plan: Plan, update: Update, field: str, value: Any
) -> None:
    mayo = consortium.site_identity("mayo")
    ledger = SiteLedger(tmp_path / "mayo", lambda: mayo)
    said = ledger.state(plan, update, "d" * 64).statement.model_copy(update={field: value})
    lie = ledger._sign(said, update)  # a site that signs what is not true
    with pytest.raises(Refused, match=f"the statement is false in {field}") as refused:
        notary.confirm(plan, _upload(update), statement_to_wire(lie), _calls_as(mayo))
    assert refused.value.code is RefusalCode.STATEMENT


def test_an_encoding_that_the_plan_asks_for_must_be_stated(
    tmp_path: Path, consortium: Consortium, notary: Notary, plan: Plan, update: Update
) -> None:
    mayo = consortium.site_identity("mayo")
    encoded = plan.model_copy(update={"upload": "delta"})
    signed = _state(tmp_path / "mayo", mayo, encoded, update)
    assert signed.statement.filters == (Filter(kind="encoded-delta"),)
    assert notary.confirm(encoded, _upload(update), statement_to_wire(signed), _calls_as(mayo))
    with pytest.raises(Refused, match="filters"):
        notary.confirm(plan, _upload(update), statement_to_wire(signed), _calls_as(mayo))


@pytest.mark.parametrize("change", ["another site", "a bit of the signature", "a digit of the code", "no signature"])
def test_what_the_site_has_not_signed_is_refused(
    tmp_path: Path, consortium: Consortium, notary: Notary, plan: Plan, update: Update, change: str
) -> None:
    mayo = consortium.site_identity("mayo")
    signer = consortium.site_identity("central") if change == "another site" else mayo
    wire = statement_to_wire(_state(tmp_path / "site", signer, plan, update))
    if change == "a bit of the signature":
        raw = bytearray(wire.signature)
        raw[-1] ^= 1
        wire.signature = bytes(raw)
    elif change == "a digit of the code":
        wire.code = ("0" if wire.code[0] != "0" else "1") + wire.code[1:]
    elif change == "no signature":
        wire.signature = b""
    with pytest.raises(Refused, match="not signed by this site's key") as refused:
        notary.confirm(plan, _upload(update), wire, _calls_as(mayo))
    assert refused.value.code is RefusalCode.STATEMENT


def test_a_site_without_statements_stays_unsigned_until_it_has_made_one(
    tmp_path: Path, consortium: Consortium, notary: Notary, plan: Plan, update: Update
) -> None:
    mayo = consortium.site_identity("mayo")
    assert notary.confirm(plan, _upload(update), None, _calls_as(mayo)) is None
    signed = _state(tmp_path / "mayo", mayo, plan, update)
    assert notary.confirm(plan, _upload(update), statement_to_wire(signed), _calls_as(mayo))
    again = Notary(tmp_path / "certificates", consortium.name, consortium.server_identity)
    with pytest.raises(Refused, match="came without statement"):
        again.confirm(plan, _upload(update), None, _calls_as(mayo))
    central = consortium.site_identity("central")
    assert again.confirm(plan.model_copy(update={"site": "central"}), _upload(update), None, _calls_as(central)) is None


@pytest.mark.parametrize(("version", "must_sign"), [(2, False), (3, True)])
def test_who_speaks_the_protocol_with_statements_must_make_them(
    consortium: Consortium, notary: Notary, plan: Plan, update: Update, version: int, must_sign: bool
) -> None:
    mayo = consortium.site_identity("mayo")
    notary.meet("mayo", version, _calls_as(mayo))
    if not must_sign:
        assert notary.confirm(plan, _upload(update), None, _calls_as(mayo)) is None
        return
    with pytest.raises(Refused, match="came without statement"):
        notary.confirm(plan, _upload(update), None, _calls_as(mayo))


def test_a_statement_holds_although_the_certificate_was_renewed_before_it_was_sent(
    tmp_path: Path, consortium: Consortium, notary: Notary, plan: Plan, update: Update
) -> None:
    mayo = consortium.site_identity("mayo")
    notary.meet("mayo", 3, _calls_as(mayo))
    signed = _state(tmp_path / "mayo", mayo, plan, update)
    request = enrol.renewal_request(consortium.sites["mayo"])
    chain = ca.renew(consortium.authority / "renewal", "mayo", request, 7)
    enrol.commit_pair(consortium.sites["mayo"], chain)
    notary.renewed("mayo", chain)
    renewed = consortium.site_identity("mayo")
    found = notary.confirm(plan, _upload(update), statement_to_wire(signed), _calls_as(renewed))
    assert found is not None and found.certificate == signed.certificate
    resumed = {"x509_pem_cert": _calls_as(renewed)["x509_pem_cert"]}  # as grpc tells of a resumed connection
    later = _state(tmp_path / "later", renewed, plan, update)
    found = notary.confirm(plan, _upload(update), statement_to_wire(later), resumed)
    assert found is not None and len(read_certificates(notary.chain_pem(found.certificate), "mayo")) == 2


def test_a_statement_with_a_strange_field_is_refused(
    consortium: Consortium, notary: Notary, plan: Plan, update: Update
) -> None:
    wire = pb.Statement(code="\x00" * 1000, signature=base64.b64decode("AAAA"))
    with pytest.raises(Refused, match="not what the protocol allows"):
        notary.confirm(plan, _upload(update), wire, _calls_as(consortium.site_identity("mayo")))
