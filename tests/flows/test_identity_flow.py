"""Who may take part: each wrong certificate is refused, and the site's own log says which, before or after connecting.

The `site-client` command runs as users run it, against a coordinator's service with real certificates on 127.0.0.1.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bare_site import bare_site
from federation import Coordinator, coordinator
from identities import Consortium, make_consortium
from mammofed_shared.commands import ExitCode
from mammofed_shared.errors import Unreachable
from mammofed_shared.pki import Identity, load_identity
from mammofed_site.diagnosis import explain_unreachable
from mammofed_site.link import Link

NOW = datetime.now(UTC)
LONGEST_S = 90


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    founded = NOW - timedelta(days=3)
    return make_consortium(tmp_path_factory.mktemp("consortium"), ["mayo", "upmc"], now=founded)


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    """Another consortium that calls itself the same."""
    return make_consortium(tmp_path_factory.mktemp("strangers"), ["mayo"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, consortium: Consortium) -> Iterator[Coordinator]:
    """A coordinator of a run that mayo alone takes part in."""
    with coordinator(tmp_path_factory.mktemp("spool"), consortium, sites=("mayo",)) as running:
        yield running


def _client(folder: Path, server: Coordinator, identity: Path, site: str = "mayo") -> subprocess.Popen[bytes]:
    settings = bare_site(folder / "site", site, server=f"127.0.0.1:{server.port}", identity=identity)
    (folder / "site.yaml").write_text(settings.model_dump_json())
    with (folder / "out").open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "mammofed_site.cli", "--site", site, "--config", str(folder / "site.yaml")],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )


def _ends(process: subprocess.Popen[bytes], folder: Path) -> tuple[int, str]:
    """Exit code and the site's own log."""
    try:
        code = process.wait(LONGEST_S)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in (folder / "out").read_text()
    return code, (folder / "site/site-client.log").read_text()


def _copy(source: Path, target: Path, **replaced: Path) -> Path:
    """An identity folder with files of another one in their place; ``replaced`` by stem."""
    shutil.copytree(source, target)
    for stem, other in replaced.items():
        shutil.copy(next(other.glob(f"{stem}.*")), target)
    return target


# ── refused by the site itself, before it connects ──────────────────────────────────────────────────────────────


def _missing(folder: Path, consortium: Consortium, strangers: Consortium) -> Path:
    copied = _copy(consortium.sites["mayo"], folder / "identity")
    (copied / "certificate.pem").unlink()
    return copied


def _expired(folder: Path, consortium: Consortium, strangers: Consortium) -> Path:
    return consortium.enrol("mayo", folder / "identity", days=1, now=NOW - timedelta(days=2))


def _foreign(folder: Path, consortium: Consortium, strangers: Consortium) -> Path:
    theirs = strangers.sites["mayo"]
    return _copy(consortium.sites["mayo"], folder / "identity", certificate=theirs, key=theirs)


def _wrong(folder: Path, consortium: Consortium, strangers: Consortium) -> Path:
    return _copy(consortium.sites["mayo"], folder / "identity", certificate=consortium.sites["upmc"])


def _upmcs(folder: Path, consortium: Consortium, strangers: Consortium) -> Path:
    return consortium.sites["upmc"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(_missing, "certificate.pem missing", id="missing"),
        pytest.param(_expired, "the certificate of site mayo has expired", id="expired"),
        pytest.param(_foreign, "the certificate of site mayo is foreign", id="foreign"),
        pytest.param(_wrong, "certificate.pem", id="of another key"),
        pytest.param(
            _upmcs, "it is for spiffe://hospitals/site/upmc, expected spiffe://hospitals/site/mayo", id="upmc's"
        ),
    ],
)
def test_a_wrong_certificate_ends_the_site_before_it_connects(
    tmp_path: Path, consortium: Consortium, strangers: Consortium, server: Coordinator, make: object, said: str
) -> None:
    identity = make(tmp_path, consortium, strangers)  # type: ignore[operator]
    code, log = _ends(_client(tmp_path, server, identity), tmp_path)
    assert code == ExitCode.IDENTITY
    assert said in log, "the site's own log says why"
    assert said in (tmp_path / "out").read_text(), "and so does the terminal"
    assert server.board.snapshot()[0].last_seen == 0, "no call came through"


# ── refused after it connects ───────────────────────────────────────────────────────────────────────────────────


def test_a_site_outside_the_run_ends_with_what_the_coordinator_said(
    tmp_path: Path, consortium: Consortium, server: Coordinator
) -> None:
    code, log = _ends(_client(tmp_path, server, consortium.sites["upmc"], site="upmc"), tmp_path)
    assert code == ExitCode.REFUSED
    assert "site upmc is not part of run test" in log


def test_a_coordinator_of_another_consortium_is_named_in_the_sites_log(
    tmp_path: Path, strangers: Consortium, server: Coordinator
) -> None:
    """The site's own check passes; only the handshake tells the two consortia apart."""
    process = _client(tmp_path, server, strangers.sites["mayo"])
    log = tmp_path / "site/site-client.log"
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until and not (log.exists() and "trying again" in log.read_text()):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    code, said = _ends(process, tmp_path)
    assert code == ExitCode.INTERRUPTED, "it waits for the lead to mend it"
    assert "its certificate was not accepted here" in said and "another consortium's coordinator" in said


# ── and when a site leaves its own check out ────────────────────────────────────────────────────────────────────


def _unchecked(folder: Path, like: Identity) -> Identity:
    """The identity in a folder as a site without our checks would use it."""
    return replace(
        like,
        key_path=folder / "key.pem",
        key_pem=(folder / "key.pem").read_bytes(),
        chain_pem=(folder / "certificate.pem").read_bytes(),
    )


def _hello(server: Coordinator, identity: Identity, caplog: pytest.LogCaptureFixture) -> str:
    """What the site's log says; the coordinator does not let the connection come about."""
    link = Link("mayo", f"127.0.0.1:{server.port}", identity)
    link._stopping.set()  # one attempt
    with pytest.raises(Unreachable):
        link.hello(1, 1)
    link.close()
    return caplog.text


def test_a_foreign_certificate_does_not_come_through(
    consortium: Consortium, strangers: Consortium, server: Coordinator, caplog: pytest.LogCaptureFixture
) -> None:
    identity = _unchecked(strangers.sites["mayo"], consortium.site_identity("mayo"))
    said = _hello(server, identity, caplog)
    assert "so it does not accept it: the certificate of site mayo is foreign" in said


def test_an_expired_certificate_does_not_come_through(
    tmp_path: Path, consortium: Consortium, server: Coordinator, caplog: pytest.LogCaptureFixture
) -> None:
    folder = consortium.enrol("mayo", tmp_path / "identity", days=1, now=NOW - timedelta(days=2))
    said = _hello(server, _unchecked(folder, consortium.site_identity("mayo")), caplog)
    assert "so it does not accept it: the certificate of site mayo has expired" in said


def test_a_certificate_that_is_right_is_not_blamed(consortium: Consortium, server: Coordinator) -> None:
    identity = consortium.site_identity("mayo")
    said = explain_unreachable(f"127.0.0.1:{server.port}", identity, "Socket closed")
    assert "it accepts this site's certificate" in said


def test_upmcs_certificate_cannot_speak_for_mayo(
    tmp_path: Path, consortium: Consortium, caplog: pytest.LogCaptureFixture
) -> None:
    with coordinator(tmp_path / "spool", consortium, sites=("mayo", "upmc")) as server:
        link = Link("mayo", f"127.0.0.1:{server.port}", consortium.site_identity("upmc"))
        with pytest.raises(Unreachable, match="the certificate is of upmc, not of 'mayo'"):
            link.hello(1, 1)
        link.close()


def test_the_coordinators_own_certificate_is_no_sites(
    consortium: Consortium, server: Coordinator, caplog: pytest.LogCaptureFixture
) -> None:
    assert "so it does not accept it" in _hello(server, consortium.server_identity(), caplog)


def test_where_nothing_listens_the_sentence_says_so(consortium: Consortium) -> None:
    identity = load_identity(consortium.sites["mayo"], "hospitals", "mayo")
    assert "nothing listens there" in explain_unreachable("127.0.0.1:1", identity, "Socket closed")
    assert "check address, firewall and DNS" in explain_unreachable("no.such.host.invalid:1", identity, "Socket closed")
    assert "check address" in explain_unreachable("an address without a port", identity, "Socket closed")
