"""Certificates that change while a run goes on: revoked, renewed, replaced; and sites of an older protocol."""

import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from bare_site import bare_site
from federation import METRICS, Coordinator, OpenGate, coordinator, make_plan, small_state
from identities import PASSPHRASE, Consortium, make_consortium
from mammofed_server import ca
from mammofed_server import service as service_module
from mammofed_shared.errors import Unreachable
from mammofed_shared.pki import REVOKED_FILE, load_identity
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.plan import Update
from mammofed_shared.protocol.wire import PROTOCOL_VERSION
from mammofed_site import link as link_module
from mammofed_site.audit import Audit
from mammofed_site.client import Heartbeat
from mammofed_site.hold import HoldWatch
from mammofed_site.link import Link
from mammofed_site.renewal import Renewal
from mammofed_site.visit import Monitor
from raw_site import RawSite

OLD_PROTO = Path(__file__).parents[1] / "golden" / "federation-2.proto"


NOW = datetime.now(UTC)


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    """Founded some weeks ago, so that its sites' certificates can be about to end."""
    return make_consortium(tmp_path / "consortium", ["mayo", "upmc"], now=NOW - timedelta(days=20))


@pytest.fixture
def server(tmp_path: Path, consortium: Consortium) -> Iterator[Coordinator]:
    with coordinator(tmp_path / "spool", consortium, sites=("mayo", "upmc")) as running:
        yield running


class _Mayo:
    """Mayo with a certificate that ends soon, and what renews it."""

    def __init__(self, server: Coordinator, consortium: Consortium, folder: Path, left: timedelta) -> None:
        consortium.enrol("mayo", folder / "identity", days=15, now=NOW - timedelta(days=15) + left)
        self.identity = load_identity(folder / "identity", consortium.name, "mayo")
        self.link = Link("mayo", f"127.0.0.1:{server.port}", self.identity, OpenGate("mayo"))
        self.audit = _Audit(folder)
        settings = bare_site(folder, identity=folder / "identity")
        self.renewal = Renewal(settings, self.identity, self.link, self.audit)
        self.watch = HoldWatch(settings, lambda hold: None)

    def serial(self) -> int:
        chain = (self.audit.folder / "identity/certificate.pem").read_bytes()
        return x509.load_pem_x509_certificates(chain)[0].serial_number


class _Audit(Audit):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder
        self.renewed = threading.Event()

    def write(self, event: str, **facts: Any) -> None:
        super().write(event, **facts)
        if event == "renewed":
            self.renewed.set()


@pytest.fixture
def mayo(server: Coordinator, consortium: Consortium, tmp_path: Path) -> Iterator[_Mayo]:
    made = _Mayo(server, consortium, tmp_path / "mayo", timedelta(days=2))
    yield made
    made.link.close()


# ── revoked ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_revoked_site_is_refused_on_the_connection_that_it_has(server: Coordinator, consortium: Consortium) -> None:
    mayo, upmc = server.link(consortium, "mayo"), server.link(consortium, "upmc")
    mayo.hello(1, 1)
    ca.revoke(consortium.authority, PASSPHRASE, ["mayo"])
    with pytest.raises(Unreachable, match="revoked: the certificate of site mayo was revoked by the consortium's lead"):
        mayo.poll(pb.PollRequest(state=pb.READY, wait_s=0))
    with pytest.raises(Unreachable, match="revoked"):
        mayo.submit(Update(task_id="test/r0001/v00001/mayo/train", payload=None, metrics=METRICS), None)
    upmc.hello(1, 1)
    mayo.close()
    upmc.close()


def test_a_revoked_site_cannot_renew(consortium: Consortium, mayo: _Mayo, caplog: pytest.LogCaptureFixture) -> None:
    ca.revoke(consortium.authority, PASSPHRASE, ["mayo"])
    before, serial = ca.listing(consortium.authority), mayo.serial()
    mayo.renewal.if_due()
    assert "the coordinator gave no new certificate: revoked" in caplog.text
    assert ca.listing(consortium.authority) == before and mayo.serial() == serial


def test_a_renewal_that_the_authority_has_never_seen_is_revoked_with_its_enrolment(
    consortium: Consortium, mayo: _Mayo, tmp_path: Path
) -> None:
    """The thief renews between the lead's command and the list's arrival at the coordinator."""
    listed, elsewhere = consortium.server / REVOKED_FILE, tmp_path / "on its way"
    ca.revoke(consortium.authority, PASSPHRASE, ["mayo"])
    listed.rename(elsewhere)
    mayo.renewal.if_due()
    assert mayo.serial() not in ca.revoked_serials(consortium.authority), "the list was made before"
    mayo.link.hello(1, 1)
    elsewhere.rename(listed)
    with pytest.raises(Unreachable, match="revoked"):
        mayo.link.hello(1, 1)


def test_a_transfer_that_is_under_way_is_cut_when_its_site_is_revoked(
    server: Coordinator, consortium: Consortium, tmp_path: Path
) -> None:
    plan = make_plan(small_state(tmp_path / "state"))
    server.mailbox.put(plan, tmp_path / "state")
    header = pb.SubmitHeader(task_id=plan.task_id, metrics=METRICS)
    header.payload.digest, header.payload.size = "0" * 64, plan.state.size if plan.state else 0
    site, more = RawSite(consortium.site_identity("mayo"), server.port), threading.Event()

    def parts() -> Iterator[bytes]:
        yield pb.SubmitPart(header=header).SerializeToString()
        yield pb.SubmitPart(data=b"x").SerializeToString()
        ca.revoke(consortium.authority, PASSPHRASE, ["mayo"])
        more.wait(20)

    said = site.outcome("Submit", parts(), timeout=20)
    more.set()
    assert said.startswith("CANCELLED"), said
    assert site.outcome("Offset", b"").startswith("UNAUTHENTICATED: revoked")
    site.close()


def test_a_list_that_cannot_be_relied_on_makes_sites_wait_and_ends_none(
    server: Coordinator, consortium: Consortium
) -> None:
    ca.revoke(consortium.authority, PASSPHRASE, ["mayo"])
    upmc, listed = RawSite(consortium.site_identity("upmc"), server.port), consortium.server / REVOKED_FILE
    assert upmc.outcome("Poll", b"") == "OK"
    whole = listed.read_bytes()
    listed.write_bytes(whole[:100])
    assert upmc.outcome("Poll", b"").startswith("UNAVAILABLE: the coordinator's list of revoked certificates")
    listed.write_bytes(whole)
    assert upmc.outcome("Poll", b"") == "OK"
    upmc.close()


# ── renewed and replaced ────────────────────────────────────────────────────────────────────────────────────────


def test_a_certificate_is_renewed_in_the_middle_of_a_visit(
    server: Coordinator, consortium: Consortium, mayo: _Mayo, tmp_path: Path
) -> None:
    plan, before = make_plan(small_state(tmp_path / "state")), mayo.serial()
    server.mailbox.put(plan, tmp_path / "state")
    heartbeat = Heartbeat(mayo.link, plan, Monitor(), mayo.watch, mayo.renewal)
    heartbeat.start(pb.TRAINING)
    assert mayo.audit.renewed.wait(30)
    heartbeat.stop()
    assert mayo.serial() != before
    assert mayo.link.hello(1, 1) == "test", "over a connection with the new certificate"
    (line,) = [item for item in server.board.snapshot() if item.site == "mayo"]
    assert line.certificate_until is not None and line.certificate_until > NOW + timedelta(days=60)


def test_an_upload_ends_well_although_its_certificate_ends_before_it(
    server: Coordinator, consortium: Consortium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mayo = _Mayo(server, consortium, tmp_path / "mayo", datetime.now(UTC) - NOW + timedelta(seconds=4))
    plan, update = make_plan(small_state(tmp_path / "state")), small_state(tmp_path / "update", 2.0)
    server.mailbox.put(plan, tmp_path / "state")
    begun, over, whole = threading.Event(), threading.Event(), link_module._parts

    def slow(header: Any, path: Path) -> Iterator[Any]:
        yield pb.SubmitPart(header=header)
        if not begun.is_set():
            yield pb.SubmitPart(data=path.read_bytes()[:50])
            begun.set()
            over.wait(20)  # the certificate ends in 4 s, and with it this call
        yield from list(whole(header, path))[1:]

    monkeypatch.setattr(link_module, "_parts", slow)
    with ThreadPoolExecutor(1) as pool:
        sent = Update(task_id=plan.task_id, payload=update, metrics=METRICS)
        submitted = pool.submit(mayo.link.submit, sent, tmp_path / "update")
        assert begun.wait(10)
        mayo.renewal.if_due()
        assert mayo.audit.renewed.is_set()
        assert submitted.result(30) is None
        over.set()
    assert datetime.now(UTC) > mayo.identity.not_after
    assert server.mailbox.update_path(plan.task_id).read_bytes() == (tmp_path / "update").read_bytes()
    mayo.link.close()


def test_a_coordinator_that_is_away_is_asked_again_soon(
    consortium: Consortium, server: Coordinator, mayo: _Mayo, tmp_path: Path
) -> None:
    now = [0.0]
    settings = bare_site(tmp_path / "mayo", identity=tmp_path / "mayo/identity")
    away = Link("mayo", "127.0.0.1:1", mayo.identity)
    renewal = Renewal(settings, mayo.identity, away, mayo.audit, clock=lambda: now[0])
    renewal.if_due()
    away.close()
    renewal._link = mayo.link
    now[0] = 3600
    renewal.if_due()
    assert not mayo.audit.renewed.is_set(), "every tenth of what is left"
    now[0] = 5 * 3600
    renewal.if_due()
    assert mayo.audit.renewed.is_set()


def test_a_site_warns_once_a_day_while_it_cannot_renew(
    consortium: Consortium, mayo: _Mayo, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (consortium.authority / "renewal/certificate.pem").unlink()
    for _ in range(5):
        mayo.renewal.if_due()
    assert caplog.text.count("this site's certificate ends in 2 day(s)") == 1
    assert "site-client enrol --site mayo" in caplog.text


def _servers_serial(server: Coordinator, consortium: Consortium) -> int:
    pem = ssl.get_server_certificate(("127.0.0.1", server.port), timeout=10)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def test_a_refreshed_server_certificate_serves_without_a_restart(
    server: Coordinator, consortium: Consortium, mayo: _Mayo
) -> None:
    mayo.link.hello(1, 1)
    before = _servers_serial(server, consortium)
    ca.refresh(consortium.authority, PASSPHRASE)
    after = _servers_serial(server, consortium)
    assert after != before
    assert f"{after:x}" in {line.serial for line in ca.listing(consortium.authority)}
    assert mayo.link.hello(1, 1) == "test", "the connection that was open stays"
    upmc = server.link(consortium, "upmc")
    assert upmc.hello(1, 1) == "test", "and a new one is made with the new certificate"
    upmc.close()


def test_tls_1_2_is_refused_to_openssl_and_tls_1_3_is_not(
    server: Coordinator, consortium: Consortium, tmp_path: Path
) -> None:
    """As docs/security.md tells a hospital's IT to look."""
    folder = consortium.sites["mayo"]
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-alpn", "h2"]
    command += ["-cert", str(folder / "certificate.pem"), "-key", str(folder / "key.pem")]
    command += ["-CAfile", str(folder / "root.pem"), "-verify_return_error", "-brief"]

    def ask(version: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, version], input="", capture_output=True, text=True, errors="replace", timeout=20, check=False
        )

    old, new = ask("-tls1_2"), ask("-tls1_3")
    assert old.returncode != 0 and "CONNECTION ESTABLISHED" not in old.stderr
    assert new.returncode == 0 and "Protocol version: TLSv1.3" in new.stderr and "Verification: OK" in new.stderr


# ── sites of another protocol version ───────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The messages of protocol 2, made from its own file."""
    from grpc_tools import protoc

    out = tmp_path_factory.mktemp("old") / "descriptors"
    arguments = ["protoc", f"-I{OLD_PROTO.parent}", f"--descriptor_set_out={out}", OLD_PROTO.name]
    assert protoc.main(arguments) == 0
    pool = descriptor_pool.DescriptorPool()
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{message.name}"))
        for message in file.message_type
    }


def _old_hello(old: dict[str, Any], version: int = 2) -> bytes:
    said = old["HelloRequest"](
        protocol_version=version, software_contract="mammofed-1", site="mayo", num_training_exams=120
    )
    return bytes(said.SerializeToString())


def test_a_site_of_protocol_2_does_a_whole_visit(
    server: Coordinator, consortium: Consortium, old: dict[str, Any], tmp_path: Path
) -> None:
    plan, update = make_plan(small_state(tmp_path / "state")), small_state(tmp_path / "update", 2.0)
    server.mailbox.put(plan, tmp_path / "state")
    site = RawSite(consortium.site_identity("mayo"), server.port)
    hello = old["HelloReply"].FromString(site.call("Hello")(_old_hello(old), timeout=10))
    assert (hello.run, hello.protocol_version) == ("test", 2)
    poll = old["PollRequest"](state=1, wait_s=5).SerializeToString()
    told = old["PollReply"].FromString(site.call("Poll")(poll, timeout=10)).plan
    assert (told.task_id, told.epochs, told.state.digest) == (plan.task_id, 1, plan.state.digest if plan.state else "")
    chunks = site.call("Fetch")(old["FetchRequest"](task_id=told.task_id).SerializeToString(), timeout=10)
    assert b"".join(old["Chunk"].FromString(raw).data for raw in chunks) == (tmp_path / "state").read_bytes()
    header = old["SubmitHeader"](task_id=told.task_id, metrics=METRICS)
    header.payload.digest, header.payload.size = update.digest, update.size
    parts = [old["SubmitPart"](header=header), old["SubmitPart"](data=(tmp_path / "update").read_bytes())]
    raw = site.call("Submit")((part.SerializeToString() for part in parts), timeout=10)
    assert old["SubmitReply"].FromString(raw).accepted
    (line,) = [item for item in server.board.snapshot() if item.site == "mayo"]
    assert line.protocol_version == 2, "whoever writes the ledger knows that it has signed nothing"
    site.close()


@pytest.mark.parametrize("replaced", [{"proximal_mu": 0.1}, {"control_variates": True}, {"upload": "delta"}])
def test_a_site_of_protocol_2_gets_no_plan_that_it_would_misunderstand(
    server: Coordinator, consortium: Consortium, old: dict[str, Any], tmp_path: Path, replaced: dict[str, Any]
) -> None:
    plan = make_plan(small_state(tmp_path / "state")).model_copy(update=replaced)
    server.mailbox.put(plan, tmp_path / "state")
    site = RawSite(consortium.site_identity("mayo"), server.port)
    assert site.outcome("Hello", _old_hello(old)) == "OK"
    said = site.outcome("Poll", old["PollRequest"](state=1, wait_s=5).SerializeToString())
    assert said.startswith("PERMISSION_DENIED: protocol version 2 at the site, but this run's settings need 3")
    assert "pip install mammofed==" in said
    assert server.mailbox.is_open("mayo", plan.task_id), "the plan waits for the upgraded site"
    site.close()
    link = server.link(consortium, "mayo")
    assert link.poll(pb.PollRequest(state=pb.READY, wait_s=5)).HasField("plan")
    link.close()


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (0, "protocol version 0 at the site, 2 or 3 here: upgrade the site: pip install mammofed=="),
        (1, "protocol version 1 at the site, 2 or 3 here: upgrade the site: pip install mammofed=="),
        (
            PROTOCOL_VERSION + 1,
            "ask the lead to upgrade the coordinator, or install its version: pip install mammofed==",
        ),
    ],
)
def test_any_other_version_is_refused_with_the_upgrade_to_make(
    server: Coordinator, consortium: Consortium, old: dict[str, Any], version: int, said: str
) -> None:
    site = RawSite(consortium.site_identity("mayo"), server.port)
    outcome = site.outcome("Hello", _old_hello(old, version))
    assert outcome.startswith("FAILED_PRECONDITION") and said in outcome
    site.close()


# ── clocks ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("ahead_s", "said"), [(600, "600 s ahead of"), (-600, "600 s behind"), (30, "")])
def test_a_site_says_how_far_its_clock_is_off_and_works_on(
    server: Coordinator,
    mayo: _Mayo,
    ahead_s: float,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(service_module, "_now_s", lambda: time.time() - ahead_s)
    assert mayo.link.hello(1, 1) == "test"
    assert ("clock skew: this machine's clock is " + said in caplog.text) if said else "skew" not in caplog.text
