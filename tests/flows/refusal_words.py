"""Provokes each refusal of identity and trust, and records its very words.

    .venv/bin/python tests/flows/refusal_words.py      writes the table of docs/security.md anew

Nothing here is written by hand but what happened: the words are those that the site's or the coordinator's log shows.
Dates, fingerprints, folders and ports are replaced by placeholders, so that the table is the same on every machine.
"""

import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copy, copytree
from unittest import mock

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "fuzz")]

import mammofed_shared  # noqa: E402, F401, I001  (tls13 must come before the first import of grpc)

from fuzz_service import write_between  # noqa: E402

from federation import Coordinator, coordinator, make_plan, small_state  # noqa: E402
from identities import PASSPHRASE, Consortium, make_consortium  # noqa: E402
from mammofed_server import ca  # noqa: E402
from mammofed_server.trust import REFRESH, Trust  # noqa: E402
from mammofed_shared.errors import MammofedError  # noqa: E402
from mammofed_shared.pki import COORDINATOR, REVOKED_FILE, Identity, expiry_warning, load_identity, read_certificates  # noqa: E402
from mammofed_shared.protocol import federation_pb2 as pb  # noqa: E402
from mammofed_shared.protocol.tls import peer_of  # noqa: E402
from mammofed_site import diagnosis, enrol  # noqa: E402
from mammofed_site.diagnosis import explain_unreachable, skew_words  # noqa: E402
from mammofed_site.link import Link  # noqa: E402
from raw_site import RawSite  # noqa: E402

DOCUMENT = HERE.parents[1] / "docs" / "security.md"
BEGIN, END = "<!-- refusal words: begin -->", "<!-- refusal words: end -->"
NOW = datetime.now(UTC)
FOUNDED = NOW - timedelta(days=10)
SITE, SERVER = "site", "coordinator"


class Stage:
    """A consortium, strangers of the same name, and a coordinator that knows mayo and upmc."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ours = make_consortium(folder / "ours", ["mayo", "upmc", "emory"], now=FOUNDED)
        self.strangers = make_consortium(folder / "strangers", ["mayo"], now=FOUNDED)
        self._number = 0

    def new(self) -> Path:
        """A folder that does not exist yet."""
        self._number += 1
        return self.folder / f"identity{self._number}"

    def mayos(self, **replaced: Path) -> Path:
        """A copy of mayo's identity with files of another one in their place; ``replaced`` by stem."""
        made = self.new()
        copytree(self.ours.sites["mayo"], made)
        for stem, other in replaced.items():
            copy(next(other.glob(f"{stem}.*")), made)
        return made

    def ended(self) -> Path:
        """An identity of mayo that has expired."""
        return self.ours.enrol("mayo", self.new(), days=1, now=NOW - timedelta(days=2))

    def running(self, sites: tuple[str, ...] = ("mayo", "upmc"), consortium: Consortium | None = None):  # type: ignore[no-untyped-def]
        """A coordinator."""
        return coordinator(self.new(), consortium or self.ours, sites=sites)


def said(act: Callable[[], object]) -> str:
    """The words of the error that this raises."""
    try:
        act()
    except MammofedError as error:
        return str(error)
    raise AssertionError("nothing was refused")


def loads(folder: Path, now: datetime | None = None, name: str = "mayo") -> str:
    """What loading an identity says."""
    return said(lambda: load_identity(folder, "hospitals", name, now))


def unchecked(stage: Stage, folder: Path) -> Identity:
    """The identity in a folder as a site without our checks would use it; it trusts our root."""
    return replace(
        stage.ours.site_identity("mayo"),
        key_path=folder / "key.pem",
        key_pem=(folder / "key.pem").read_bytes(),
        chain_pem=(folder / "certificate.pem").read_bytes(),
    )


def hello(server: Coordinator, identity: Identity, site: str = "mayo") -> str:
    """What a site's Hello ends with."""
    link = Link(site, f"127.0.0.1:{server.port}", identity)
    try:
        return said(lambda: link.hello(1, 1))
    finally:
        link.close()


# ── what is provoked ────────────────────────────────────────────────────────────────────────────────────────────


def _not_enrolled(stage: Stage) -> str:
    return loads(stage.folder / "nowhere")


def _not_signed(stage: Stage) -> str:
    folder = stage.mayos()
    (folder / "certificate.pem").unlink()
    return loads(folder)


def _readable(stage: Stage) -> str:
    folder = stage.mayos()
    (folder / "key.pem").chmod(0o644)
    return loads(folder)


def _another_key(stage: Stage) -> str:
    return loads(stage.mayos(certificate=stage.ours.sites["upmc"]))


def _expired(stage: Stage) -> str:
    return loads(stage.ended())


def _not_yet(stage: Stage) -> str:
    return loads(stage.mayos(), FOUNDED - timedelta(minutes=30))


def _foreign(stage: Stage) -> str:
    theirs = stage.strangers.sites["mayo"]
    return loads(stage.mayos(certificate=theirs, key=theirs))


def _another_root(stage: Stage) -> str:
    folder = stage.mayos()
    copy(stage.strangers.sites["mayo"] / "root.pem", folder / "root.pem")
    return loads(folder)


def _wrong_site(stage: Stage) -> str:
    return loads(stage.ours.sites["upmc"])


def _servers_own(stage: Stage) -> str:
    return loads(stage.ours.sites["mayo"], name=COORDINATOR)


def _speaks_for_another(stage: Stage) -> str:
    with stage.running() as server:
        return hello(server, stage.ours.site_identity("upmc"))


def _outside_the_run(stage: Stage) -> str:
    with stage.running() as server:
        return hello(server, stage.ours.site_identity("emory"), "emory")


def _revoked(stage: Stage) -> str:
    folder = stage.ours.enrol("mayo", stage.new(), now=FOUNDED)
    serial = f"{read_certificates((folder / 'certificate.pem').read_bytes(), 'mayo')[0].serial_number:x}"
    with stage.running() as server:
        ca.revoke(stage.ours.authority, PASSPHRASE, serials=[serial])
        return hello(server, load_identity(folder, "hospitals", "mayo"))


def _ended_while_connected(stage: Stage) -> str:
    leaf = stage.ours.site_identity("mayo").chain_pem
    context = {"ssl_tls_version": [b"TLSv1.3"], "x509_pem_cert": [leaf]}
    return said(lambda: peer_of(context, "hospitals", NOW + timedelta(days=400)))


def _clocks_differ(stage: Stage) -> str:
    return skew_words(1000.0, 1600.0, 1600.2)


def _old_by_the_coordinators_clock(stage: Stage) -> str:
    identity = unchecked(stage, stage.ended())
    slow = mock.Mock(wraps=datetime)
    slow.now.return_value = NOW - timedelta(days=1, hours=12)
    with stage.running() as server, mock.patch.object(diagnosis, "datetime", slow):
        return explain_unreachable(f"127.0.0.1:{server.port}", identity, "Socket closed")


def _closed_on_a_foreign_one(stage: Stage) -> str:
    with stage.running() as server:
        identity = unchecked(stage, stage.strangers.sites["mayo"])
        return explain_unreachable(f"127.0.0.1:{server.port}", identity, "Socket closed")


def _another_consortiums_coordinator(stage: Stage) -> str:
    with stage.running(consortium=stage.strangers) as server:
        identity = stage.ours.site_identity("mayo")
        return explain_unreachable(f"127.0.0.1:{server.port}", identity, "Socket closed")


def _another_address(stage: Stage) -> str:
    moved = make_consortium(stage.new(), ["mayo"])
    ca.refresh(moved.authority, PASSPHRASE, ["fl.example.org"])
    with stage.running(consortium=moved) as server:
        return explain_unreachable(f"127.0.0.1:{server.port}", moved.site_identity("mayo"), "Socket closed")


def _nothing_listens(stage: Stage) -> str:
    return explain_unreachable("127.0.0.1:1", stage.ours.site_identity("mayo"), "Socket closed")


def _version(stage: Stage, version: int) -> str:
    request = pb.HelloRequest(protocol_version=version, software_contract="mammofed-1", site="mayo")
    with stage.running() as server:
        site = RawSite(stage.ours.site_identity("mayo"), server.port)
        outcome = site.outcome("Hello", request.SerializeToString())
        site.close()
    return outcome.split(": ", 1)[1]


def _too_old_for_this_run(stage: Stage) -> str:
    state = stage.folder / "state"
    plan = make_plan(small_state(state)).model_copy(update={"upload": "delta"})
    with stage.running() as server:
        server.mailbox.put(plan, state)
        site = RawSite(stage.ours.site_identity("mayo"), server.port)
        outcome = site.outcome("Poll", pb.PollRequest(state=pb.READY, wait_s=5).SerializeToString())
        site.close()
    return outcome.split(": ", 1)[1]


def _too_often(stage: Stage) -> str:
    with stage.running() as server:
        site = RawSite(stage.ours.site_identity("mayo"), server.port)
        request = pb.OffsetRequest(task_id="x").SerializeToString()
        outcomes = [site.outcome("Offset", request) for _ in range(60)]
        site.close()
    return outcomes[-1].split(": ", 1)[1]


def _ends_soon(stage: Stage) -> str:
    words = expiry_warning("the issuer of renewals", NOW + timedelta(days=20, hours=1), REFRESH, NOW)
    assert words is not None
    return words


def _list(stage: Stage, harm: Callable[[Path], object], now: datetime | None = None) -> str:
    consortium = make_consortium(stage.new(), ["mayo"], now=FOUNDED)
    renewal = consortium.authority / ca.RENEWAL
    ca.revoke(consortium.authority, PASSPHRASE, ["mayo"], now=FOUNDED)
    trust = Trust(consortium.server_identity(), consortium.server, renewal)
    harm(consortium.server / REVOKED_FILE)
    return said(lambda: trust.require_list(now))


def _misheard(stage: Stage) -> str:
    csr, _ = enrol.request(stage.new(), "mayo", "hospitals")
    return said(lambda: ca.sign(stage.ours.authority, csr.read_bytes(), "mayo", "sha256:" + "0" * 64, PASSPHRASE))


def _passphrase(stage: Stage) -> str:
    return said(lambda: ca.refresh(stage.ours.authority, b"another passphrase"))


def _not_refreshed(stage: Stage) -> str:
    csr = enrol.renewal_request(stage.mayos())
    return said(lambda: ca.renew(stage.ours.authority / ca.RENEWAL, "mayo", csr, 1, NOW + timedelta(days=85)))


@dataclass(frozen=True, slots=True)
class Situation:
    """Something that goes wrong, who says so, and how to bring it about."""

    happened: str
    who: str
    provoke: Callable[[Stage], str]


SITUATIONS = (
    Situation("missing: the site never enrolled", SITE, _not_enrolled),
    Situation("missing: the request is not signed yet", SITE, _not_signed),
    Situation("the key can be read by others", SITE, _readable),
    Situation("certificate and key are of different requests", SITE, _another_key),
    Situation("expired", SITE, _expired),
    Situation("clock skew: by this clock the certificate is not valid yet", SITE, _not_yet),
    Situation("foreign: signed by another consortium", SITE, _foreign),
    Situation("the root was exchanged", SITE, _another_root),
    Situation("wrong site: the folder is another site's", SITE, _wrong_site),
    Situation("the server is given a site's folder", SERVER, _servers_own),
    Situation("wrong site: the certificate is another's", SITE, _speaks_for_another),
    Situation("the site is not one of the run", SITE, _outside_the_run),
    Situation("revoked", SITE, _revoked),
    Situation("expired while it was connected", SITE, _ended_while_connected),
    Situation("clock skew of ten minutes; the site works on", SITE, _clocks_differ),
    Situation(
        "clock skew: expired by the coordinator's clock, not by the site's", SITE, _old_by_the_coordinators_clock
    ),
    Situation("foreign, to a site that does not look itself", SITE, _closed_on_a_foreign_one),
    Situation("another consortium's coordinator, or a proxy that ends TLS", SITE, _another_consortiums_coordinator),
    Situation("the coordinator has another address", SITE, _another_address),
    Situation("the coordinator does not run", SITE, _nothing_listens),
    Situation("the site is too old", SITE, lambda stage: _version(stage, 1)),
    Situation("the site is newer than the coordinator", SITE, lambda stage: _version(stage, 4)),
    Situation("the site is too old for what this run asks", SITE, _too_old_for_this_run),
    Situation("more calls than a site may make; it waits", SITE, _too_often),
    Situation("something ends within 30 days", SERVER, _ends_soon),
    Situation("the list is missing", SERVER, lambda stage: _list(stage, Path.unlink)),
    Situation("the list is damaged", SERVER, lambda stage: _list(stage, lambda path: path.write_bytes(b"x"))),
    Situation(
        "the list is past its date", SERVER, lambda stage: _list(stage, lambda path: None, NOW + timedelta(days=99))
    ),
    Situation("a request was exchanged, or a fingerprint misheard", "`ca sign`", _misheard),
    Situation("the passphrase is mistyped", "`ca refresh`", _passphrase),
    Situation("the issuer of renewals was not refreshed in time", SERVER, _not_refreshed),
)

_PLACEHOLDERS = (
    (r"sha256:[0-9a-f]{64}", "sha256:…"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?", "<date>"),
    (r"(?<![:/\w])/[^\s,;:]*/(?=[\w.-]+)", "<folder>/"),
    (r"accepted here \([^)]*\)", "accepted here (…)"),
    (r"127\.0\.0\.(\d):\d+", r"127.0.0.\1:<port>"),
    (r"mammofed==[\w.]+", "mammofed==<version>"),
)


def plain(words: str) -> str:
    """Words without what differs between two machines or two days."""
    for pattern, placeholder in _PLACEHOLDERS:
        words = re.sub(pattern, placeholder, words)
    return words


def table(folder: Path) -> str:
    """The table in Markdown; every row is provoked anew."""
    stage = Stage(folder)
    lines = ["| What happened | Said by | The words |", "|---|---|---|"]
    for item in SITUATIONS:
        lines.append(f"| {item.happened} | {item.who} | {_code(plain(item.provoke(stage)))} |")
    return "\n".join(lines)


def _code(words: str) -> str:
    """Words with backticks of their own, in code."""
    return f"`` {words} ``" if "`" in words else f"`{words}`"


def main() -> None:
    """Write the table."""
    with tempfile.TemporaryDirectory() as folder:
        write_between(DOCUMENT, BEGIN, END, table(Path(folder)))


if __name__ == "__main__":
    main()
