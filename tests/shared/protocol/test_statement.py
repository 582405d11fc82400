"""A statement crosses as it was made, and its signed words never change form."""

import base64
from pathlib import Path

import pytest

from identities import make_consortium
from mammofed_shared.errors import IdentityError, ProtocolError
from mammofed_shared.pki import read_certificates
from mammofed_shared.pki.signature import RECEIPT, STATEMENT, CertificateStore, is_signed, signer_of
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.statement import (
    Filter,
    Signed,
    Statement,
    metrics_digest,
    num_exams_of,
    statement_from_wire,
    statement_to_wire,
)

STATEMENT_MADE = Statement(
    task_id="test/r0001/v00001/mayo/train",
    previous=None,
    configuration="a" * 64,
    code="b" * 64,
    data="c" * 64,
    num_exams=120,
    state="d" * 64,
    update="e" * 64,
    metrics=metrics_digest({"num_exams": 120, "loss": 0.1}),
    filters=(Filter(kind="clipped", value=1.5), Filter(kind="encoded-delta")),
    ledger_head="f" * 64,
)


def _signed(statement: Statement) -> Signed:
    return Signed(statement=statement, signature=base64.b64encode(b"signature").decode(), certificate="0" * 64)


@pytest.mark.parametrize(
    "changes",
    [{}, {"previous": "1" * 64}, {"state": None, "update": None, "ledger_head": None, "filters": ()}],
    ids=["a visit", "not the first", "a query"],
)
def test_a_statement_crosses_as_it_was_made(changes: dict[str, object]) -> None:
    statement = STATEMENT_MADE.model_copy(update=changes)
    sent = statement_to_wire(_signed(statement)).SerializeToString()
    came, signature = statement_from_wire(statement.task_id, pb.Statement.FromString(sent))
    assert came == statement and came.digest == statement.digest
    assert base64.b64decode(signature) == b"signature"


def test_the_signed_words_keep_their_form() -> None:
    """Golden: statements that were signed by an earlier version must hold for ever."""
    assert STATEMENT_MADE.text.decode() == (
        '{"code":"' + "b" * 64 + '","configuration":"' + "a" * 64 + '","data":"' + "c" * 64 + '","filters":'
        '[{"kind":"clipped","value":1.5},{"kind":"encoded-delta","value":0.0}],"ledger_head":"' + "f" * 64 + '",'
        '"metrics":"04ae0878d55539041650d21fdee8e7238a60f38a8219809a89e9812797bd9b1a","num_exams":120,"previous":null,'
        '"state":"' + "d" * 64 + '","task_id":"test/r0001/v00001/mayo/train","update":"' + "e" * 64 + '"}'
    )


def test_numbers_have_one_digest_whatever_their_order_and_type() -> None:
    assert metrics_digest({"a": 1, "b": 2.5}) == metrics_digest({"b": 2.5, "a": 1.0})
    assert metrics_digest({"a": 1.0}) != metrics_digest({"a": 1.0 + 2**-52})
    assert num_exams_of({"num_exams": 7.0}) == 7 and num_exams_of({"auroc/mass": 0.5}) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"data": "not a digest"},
        {"code": ""},
        {"configuration": "A" * 64},
        {"filters": [pb.Filter(kind=pb.FILTER_KIND_UNSPECIFIED)]},
        {"filters": [pb.Filter(kind=pb.CLIPPED, value=float("nan"))]},
        {"filters": [pb.Filter(kind=pb.CLIPPED)] * 17},
    ],
)
def test_what_a_statement_may_not_hold_is_refused(changes: dict[str, object]) -> None:
    wire = statement_to_wire(_signed(STATEMENT_MADE))
    for name in changes:
        wire.ClearField(name)
    wire.MergeFrom(pb.Statement(**changes))  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match="not what the protocol allows"):
        statement_from_wire(STATEMENT_MADE.task_id, wire)


def test_a_signature_is_for_one_key_one_purpose_and_one_text(tmp_path: Path) -> None:
    consortium = make_consortium(tmp_path, ["mayo"])
    mayo, server = consortium.site_identity("mayo"), consortium.server_identity()
    (leaf,) = read_certificates(mayo.chain_pem, "mayo")
    (other,) = read_certificates(server.chain_pem, "server")
    signature = signer_of(mayo).sign(STATEMENT, b"words")
    assert is_signed(leaf, STATEMENT, b"words", signature)
    assert not is_signed(leaf, STATEMENT, b"word", signature)
    assert not is_signed(leaf, RECEIPT, b"words", signature)
    assert not is_signed(other, STATEMENT, b"words", signature)
    for broken in ("", "x", signature[:-4], signature + "AAAA", signature.replace(signature[20], "!")):
        assert not is_signed(leaf, STATEMENT, b"words", broken)


def test_a_certificate_is_kept_under_its_digest_and_a_changed_one_is_seen(tmp_path: Path) -> None:
    consortium = make_consortium(tmp_path, ["mayo"])
    identity = consortium.site_identity("mayo")
    store = CertificateStore(tmp_path / "kept")
    chain = read_certificates(identity.chain_pem, "mayo")
    digest = store.keep(chain)
    assert digest == signer_of(identity).certificate
    assert store.chain(digest) == chain and store.chains() == [chain]
    store.keep_root(identity.root_pem)
    assert store.chains() == [chain], "the root is no chain"
    raw = store.path(digest).read_bytes()
    for place in range(0, len(raw), 7):
        changed = bytearray(raw)
        changed[place] ^= 1
        store.path(digest).write_bytes(changed)
        with pytest.raises(IdentityError):
            store.chain(digest)
    for name in ("../" + digest, "a" * 64, ""):
        with pytest.raises(IdentityError):
            store.chain(name)
