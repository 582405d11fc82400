"""A site states a contribution once, keeps the receipt, and sees whether its own record was changed."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from bare_site import bare_site
from federation import METRICS, make_plan, small_state
from identities import Consortium, make_consortium
from mammofed_server import ca
from mammofed_shared.errors import StateError
from mammofed_shared.ledger import FILE, Ledger
from mammofed_shared.pki import Identity, read_certificates
from mammofed_shared.pki.signature import RECEIPT, STATEMENT, is_signed, signer_of
from mammofed_shared.protocol.plan import Plan, Update
from mammofed_shared.protocol.statement import Filter, Signed
from mammofed_site import cli, enrol
from mammofed_site.audit import Audit
from mammofed_site.ledger import SiteLedger
from mammofed_site.ledger_check import SiteReport, check_site

DATA = "d" * 64


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return make_consortium(tmp_path_factory.mktemp("consortium"), ["central", "mayo"])


@pytest.fixture
def mayo(founded: Consortium) -> Identity:
    return founded.site_identity("mayo")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(small_state(tmp_path / "state"))


@pytest.fixture
def update(tmp_path: Path, plan: Plan) -> Update:
    payload = small_state(tmp_path / "update", 2.0)
    filters = (Filter(kind="clipped", value=1.0),)
    return Update(task_id=plan.task_id, payload=payload, metrics=METRICS, filters=filters)


def _receipt(signed: Signed, coordinator: Identity) -> tuple[bytes, bytes]:
    signature = signer_of(coordinator).sign(RECEIPT, signed.statement.digest.encode())
    return base64.b64decode(signature), coordinator.chain_pem


def _entries(folder: Path) -> list[dict[str, Any]]:
    return [line.entry for line in Ledger(folder / FILE).lines]


# ── stating ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_statement_says_what_was_asked_and_what_leaves(
    tmp_path: Path, mayo: Identity, plan: Plan, update: Update
) -> None:
    signed = SiteLedger(tmp_path / "mayo", lambda: mayo).state(plan, update, DATA)
    said = signed.statement
    assert update.payload is not None and plan.state is not None
    assert (said.task_id, said.state, said.update, said.data) == (
        plan.task_id,
        plan.state.digest,
        update.payload.digest,
        DATA,
    )
    assert (said.num_exams, said.filters, said.previous) == (10, update.filters, None)
    (leaf,) = read_certificates(mayo.chain_pem, "mayo")
    assert is_signed(leaf, STATEMENT, said.text, signed.signature)
    assert _entries(tmp_path / "mayo")[0]["signed"] == signed.model_dump(mode="json"), "safe on disk before it is sent"


def test_after_a_kill_the_same_statement_is_sent_with_the_same_signature(
    tmp_path: Path, mayo: Identity, plan: Plan, update: Update
) -> None:
    first = SiteLedger(tmp_path / "mayo", lambda: mayo).state(plan, update, DATA)
    again = SiteLedger(tmp_path / "mayo", lambda: mayo)
    assert again.state(plan, update, DATA) == first
    assert len(_entries(tmp_path / "mayo")) == 1


def test_a_statement_that_a_kill_has_cut_is_made_anew(
    tmp_path: Path, mayo: Identity, plan: Plan, update: Update
) -> None:
    first = SiteLedger(tmp_path / "mayo", lambda: mayo).state(plan, update, DATA)
    path = tmp_path / "mayo" / FILE
    path.write_bytes(path.read_bytes()[:-20])
    again = SiteLedger(tmp_path / "mayo", lambda: mayo).state(plan, update, DATA)
    assert again.statement == first.statement and len(_entries(tmp_path / "mayo")) == 1


@pytest.mark.parametrize("changed", ["update", "data", "metrics", "configuration"])
def test_what_was_done_anew_is_stated_anew_behind_the_first(
    tmp_path: Path, mayo: Identity, plan: Plan, update: Update, changed: str
) -> None:
    ledger = SiteLedger(tmp_path / "mayo", lambda: mayo)
    first = ledger.state(plan, update, DATA)
    data = "e" * 64 if changed == "data" else DATA
    if changed == "update":
        update = update.model_copy(update={"payload": small_state(tmp_path / "other", 3.0)})
    elif changed == "metrics":
        update = update.model_copy(update={"metrics": {**METRICS, "loss": 2.0}})
    elif changed == "configuration":
        plan = plan.model_copy(update={"configuration": "1" * 64})
    second = ledger.state(plan, update, data)
    assert second.statement.previous == first.statement.digest
    other = plan.model_copy(update={"task_id": "other/r0001/v00001/mayo/evaluate", "kind": "evaluate"})
    third = ledger.state(other, Update(task_id=other.task_id, payload=None, metrics={"auroc/mass": 0.5}), DATA)
    assert third.statement.previous == second.statement.digest, "one chain for all runs"
    assert (third.statement.update, third.statement.num_exams) == (None, 0)


def test_with_a_renewed_key_the_same_statement_is_signed_again(tmp_path: Path, plan: Plan, update: Update) -> None:
    consortium = make_consortium(tmp_path / "consortium", ["mayo"])
    ledger = SiteLedger(tmp_path / "mayo", lambda: consortium.site_identity("mayo"))
    first = ledger.state(plan, update, DATA)
    request = enrol.renewal_request(consortium.sites["mayo"])
    enrol.commit_pair(consortium.sites["mayo"], ca.renew(consortium.authority / "renewal", "mayo", request, 7))
    second = ledger.state(plan, update, DATA)
    assert second.statement == first.statement and second.certificate != first.certificate
    report = check_site(bare_site(tmp_path / "mayo", identity=consortium.sites["mayo"]))
    assert report.findings == [] and len(report.contributed) == 1, "the old certificate is kept, too"


def test_a_ledger_that_was_changed_ends_the_client_before_anything_is_signed(
    tmp_path: Path, mayo: Identity, plan: Plan, update: Update
) -> None:
    SiteLedger(tmp_path / "mayo", lambda: mayo).state(plan, update, DATA)
    path = tmp_path / "mayo" / FILE
    path.write_bytes(path.read_bytes().replace(b'"num_exams":10', b'"num_exams":11'))
    with pytest.raises(StateError, match="`site-client ledger`"):
        SiteLedger(tmp_path / "mayo", lambda: mayo)


# ── receipts ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_receipt_is_kept_once(
    tmp_path: Path, founded: Consortium, mayo: Identity, plan: Plan, update: Update
) -> None:
    ledger = SiteLedger(tmp_path / "mayo", lambda: mayo)
    signed = ledger.state(plan, update, DATA)
    ledger.keep_receipt(signed, *_receipt(signed, founded.server_identity()))
    again = SiteLedger(tmp_path / "mayo", lambda: mayo)
    again.keep_receipt(signed, *_receipt(signed, founded.server_identity()))
    stated, received = _entries(tmp_path / "mayo")
    assert (stated["kind"], received["kind"]) == ("stated", "received")
    assert received["statement"] == signed.statement.digest


@pytest.mark.parametrize("case", ["none", "of a site", "of another consortium", "of another statement"])
def test_a_receipt_that_is_missing_or_false_is_not_kept_but_written_down(
    tmp_path: Path, founded: Consortium, mayo: Identity, plan: Plan, update: Update, case: str
) -> None:
    ledger = SiteLedger(tmp_path / "mayo", lambda: mayo)
    signed = ledger.state(plan, update, DATA)
    if case == "none":
        receipt = b"", b""
    elif case == "of a site":
        receipt = _receipt(signed, founded.site_identity("central"))
    elif case == "of another consortium":
        receipt = _receipt(signed, make_consortium(tmp_path / "other", []).server_identity())
    else:
        other = signed.statement.model_copy(update={"num_exams": 11})
        receipt = _receipt(signed.model_copy(update={"statement": other}), founded.server_identity())
    ledger.keep_receipt(signed, *receipt)
    assert [entry["kind"] for entry in _entries(tmp_path / "mayo")] == ["stated"]
    assert '"event": "no_receipt"' in (tmp_path / "mayo/audit.jsonl").read_text()


# ── `site-client ledger` ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def contributed(tmp_path: Path, founded: Consortium, mayo: Identity, plan: Plan, update: Update) -> Path:
    """The folder of a site with two statements, one receipt and an audit record."""
    folder = tmp_path / "mayo"
    audit, ledger = Audit(folder), SiteLedger(folder, lambda: mayo)
    audit.write("permitted", task=plan.task_id)
    signed = ledger.state(plan, update, DATA)
    ledger.keep_receipt(signed, *_receipt(signed, founded.server_identity()))
    audit.write("submitted", task=plan.task_id)
    later = plan.model_copy(update={"task_id": "test/r0002/v00003/mayo/train"})
    ledger.state(later, update.model_copy(update={"task_id": later.task_id}), DATA)
    audit.write("submitted", task=later.task_id)
    return folder


def _check(folder: Path, founded: Consortium) -> SiteReport:
    return check_site(bare_site(folder, identity=founded.sites["mayo"]))


def _told(folder: Path, founded: Consortium) -> list[str]:
    return [f"{item.severity}: {item.where}: {item.what}" for item in _check(folder, founded).findings]


def test_what_was_contributed_is_listed_with_its_receipts(contributed: Path, founded: Consortium) -> None:
    report = _check(contributed, founded)
    assert report.findings == [] and report.num_audit_lines == 3
    told = [(item.signed.statement.task_id, item.has_receipt) for item in report.contributed]
    assert told == [("test/r0001/v00001/mayo/train", True), ("test/r0002/v00003/mayo/train", False)]


def test_each_changed_byte_of_the_ledger_and_of_the_audit_record_is_seen(
    contributed: Path, founded: Consortium
) -> None:
    for name in (FILE, "audit.jsonl"):
        path = contributed / name
        raw = path.read_bytes()
        last_line = raw.rfind(b"\n", 0, -1) + 1
        end = last_line if name == "audit.jsonl" else len(raw)  # nothing stands behind the last line of the record yet
        for place in range(0, end, 41):
            changed = bytearray(raw)
            changed[place] ^= 0x15
            path.write_bytes(changed)
            told = _told(contributed, founded)
            assert told and all(item.startswith("tampered") for item in told), (name, place, told)
        path.write_bytes(raw)


@pytest.mark.parametrize("index", [0, 1])
def test_a_line_that_was_taken_out_of_the_audit_record_is_missed(
    contributed: Path, founded: Consortium, index: int
) -> None:
    path = contributed / "audit.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for number, line in enumerate(lines) if number != index))
    assert any("the line before is not the one that was there" in item for item in _told(contributed, founded))


def test_an_audit_record_that_was_emptied_is_missed_by_the_ledger(contributed: Path, founded: Consortium) -> None:
    (contributed / "audit.jsonl").unlink()
    told = _told(contributed, founded)
    assert told == [
        "tampered: audit.jsonl: the line that stood last when line 1 of the ledger was made is gone",
        "tampered: audit.jsonl: the line that stood last when line 3 of the ledger was made is gone",
    ]


def test_an_audit_record_of_an_earlier_version_is_chained_from_now_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"time": "2026-01-01T00:00:00Z", "event": "fetched"}\n')
    Audit(tmp_path).write("permitted")
    Audit(tmp_path).write("x" * 40_000)
    Audit(tmp_path).write("released")
    first, *chained = [json.loads(line) for line in path.read_text().splitlines()]
    assert "previous" not in first and all("previous" in line for line in chained)


def test_a_line_of_the_audit_record_that_a_kill_has_cut_stays_a_line(tmp_path: Path) -> None:
    Audit(tmp_path).write("permitted")
    path = tmp_path / "audit.jsonl"
    path.write_bytes(path.read_bytes() + b'{"time": "20')
    Audit(tmp_path).write("released")
    lines = path.read_bytes().splitlines()
    assert len(lines) == 3 and lines[1] == b'{"time": "20'
    assert json.loads(lines[2])["previous"]


def test_a_certificate_that_was_changed_is_seen(contributed: Path, founded: Consortium) -> None:
    for path in (contributed / "certificates").iterdir():
        raw = path.read_bytes()
        path.write_bytes(raw.replace(b"A", b"B", 1))
        assert any(path.name in item for item in _told(contributed, founded))
        path.write_bytes(raw)


def test_the_command_lists_and_says_the_verdict_by_its_exit_code(contributed: Path, founded: Consortium) -> None:
    settings = bare_site(contributed, identity=founded.sites["mayo"])
    config = contributed / "mayo.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_unset=True)))
    arguments = ["ledger", "--site", "mayo", "--config", str(config)]
    said = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200"})
    assert said.exit_code == 0, said.output
    assert "test/r0002/v00003/mayo/train" in said.output and "WHOLE: 2 contributions" in said.output
    (contributed / "audit.jsonl").unlink()
    said = CliRunner().invoke(cli.app, arguments)
    assert said.exit_code == 9 and "TAMPERED" in said.output
    (contributed / FILE).unlink()
    assert CliRunner().invoke(cli.app, arguments).exit_code == 10
