"""What the running coordinator takes from its identity folder: list of revoked certificates, its own certificate."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from identities import PASSPHRASE, Consortium, make_consortium
from mammofed_server import ca
from mammofed_server import trust as trust_module
from mammofed_server.trust import NUMBER_FILE, Revoked, Trust
from mammofed_shared import pki
from mammofed_shared.errors import IdentityError
from mammofed_shared.protocol.tls import Peer, peer_of

NOW = datetime.now(UTC)


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path, ["mayo", "upmc"])


def _trust(consortium: Consortium) -> Trust:
    return Trust(consortium.server_identity(), consortium.server, consortium.authority / ca.RENEWAL)


def _peer(consortium: Consortium, site: str) -> Peer:
    leaf = consortium.site_identity(site).chain_pem
    return peer_of({"ssl_tls_version": [b"TLSv1.3"], "x509_pem_cert": [leaf]}, consortium.name)


def _revoke(consortium: Consortium, site: str) -> None:
    ca.revoke(consortium.authority, PASSPHRASE, [site])


def test_a_revocation_counts_for_the_next_call_of_a_running_coordinator(consortium: Consortium) -> None:
    trust, mayo, upmc = _trust(consortium), _peer(consortium, "mayo"), _peer(consortium, "upmc")
    trust.check(mayo)
    _revoke(consortium, "mayo")
    with pytest.raises(Revoked, match="revoked: the certificate of site mayo was revoked"):
        trust.check(mayo)
    trust.check(upmc)


def test_a_list_whose_new_date_the_file_system_hides_is_read_again_within_a_minute(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_module, "_stamp", lambda path: (1, 1, 1))
    trust, mayo = _trust(consortium), _peer(consortium, "mayo")
    _revoke(consortium, "mayo")
    trust.check(mayo)
    later_s = time.monotonic() + 60.0
    monkeypatch.setattr(trust_module.time, "monotonic", lambda: later_s)
    with pytest.raises(Revoked):
        trust.check(mayo)


def test_whatever_descends_from_a_revoked_certificate_is_revoked(consortium: Consortium) -> None:
    trust, mayo = _trust(consortium), _peer(consortium, "mayo")
    _revoke(consortium, "mayo")
    unknown = Peer("mayo", mayo.not_before, mayo.not_after, mayo.enrolment, frozenset({17, mayo.enrolment}))
    with pytest.raises(Revoked):
        trust.check(unknown)


def test_a_coordinator_without_a_list_serves_until_one_is_installed(consortium: Consortium) -> None:
    assert _trust(consortium).require_list() is None


def _removed(consortium: Consortium) -> None:
    (consortium.server / pki.REVOKED_FILE).unlink()


def _damaged(consortium: Consortium) -> None:
    (consortium.server / pki.REVOKED_FILE).write_bytes(b"not a list")


def _older(consortium: Consortium) -> None:
    before = (consortium.server / pki.REVOKED_FILE).read_bytes()
    _revoke(consortium, "upmc")
    _trust(consortium)
    (consortium.server / pki.REVOKED_FILE).write_bytes(before)


def _forgotten_number(consortium: Consortium) -> None:
    (consortium.authority / ca.RENEWAL / NUMBER_FILE).write_text("many")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_removed, "is missing; number 1 was in force"),
        (_damaged, "not a whole list"),
        (_older, "list number 1 of revoked certificates, but number 2 was in force"),
        (_forgotten_number, "not the number of the list"),
    ],
)
def test_a_list_that_cannot_be_relied_on_lets_nobody_in_and_says_so_once(
    consortium: Consortium,
    harm: Callable[[Consortium], None],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _revoke(consortium, "mayo")
    trust, upmc = _trust(consortium), _peer(consortium, "upmc")
    trust.check(upmc)
    harm(consortium)
    trust._read_at_s = -1e9  # a minute later
    for _ in range(3):
        with pytest.raises(IdentityError, match=said):
            trust.check(upmc)
    assert caplog.text.count("no site is let in") == 1
    with pytest.raises(IdentityError, match=said):
        _trust(consortium)


def test_a_list_that_is_mended_lets_sites_in_again(consortium: Consortium) -> None:
    _revoke(consortium, "mayo")
    trust, upmc = _trust(consortium), _peer(consortium, "upmc")
    whole = (consortium.server / pki.REVOKED_FILE).read_bytes()
    _damaged(consortium)
    with pytest.raises(IdentityError):
        trust.check(upmc)
    (consortium.server / pki.REVOKED_FILE).write_bytes(whole)
    trust.check(upmc)


def test_a_list_past_its_date_lets_nobody_in_until_it_is_refreshed(consortium: Consortium) -> None:
    _revoke(consortium, "mayo")
    trust, upmc = _trust(consortium), _peer(consortium, "upmc")
    late = NOW + timedelta(days=91)
    with pytest.raises(IdentityError, match=r"held until .*`fl-server ca refresh`"):
        trust.check(upmc, late)
    ca.refresh(consortium.authority, PASSPHRASE, now=NOW + timedelta(days=60))
    trust.check(upmc, late)


def test_a_refreshed_certificate_is_taken_up_once(consortium: Consortium) -> None:
    trust = _trust(consortium)
    assert trust.newer_identity() is None
    ca.refresh(consortium.authority, PASSPHRASE)
    newer = trust.newer_identity()
    assert newer is not None and newer.chain_pem == consortium.server_identity().chain_pem
    assert trust.identity is newer
    assert trust.newer_identity() is None


def test_a_certificate_that_cannot_serve_is_not_taken_up(
    consortium: Consortium, caplog: pytest.LogCaptureFixture
) -> None:
    trust = _trust(consortium)
    (consortium.server / "certificate.pem").write_bytes(b"half a certif")
    assert trust.newer_identity() is None
    assert "the one before it goes on" in caplog.text
    assert trust.newer_identity() is None, "and is not read again until it changes"
    assert caplog.text.count("the one before it goes on") == 1


def test_what_ends_within_30_days_is_said_once_a_day(consortium: Consortium, caplog: pytest.LogCaptureFixture) -> None:
    _revoke(consortium, "mayo")
    trust = _trust(consortium)
    caplog.set_level(logging.WARNING)
    for day in (0, 59):
        trust.remind(NOW + timedelta(days=day))
    assert caplog.text == ""
    for hours in (0, 5, 23):
        trust.remind(NOW + timedelta(days=61, hours=hours))
    assert caplog.text.count("the issuer of renewals ends in") == 1
    assert caplog.text.count("the list of revoked certificates ends in") == 1
    assert "the coordinator's certificate" not in caplog.text, "it has a year"
    trust.remind(NOW + timedelta(days=62, hours=1))
    assert caplog.text.count("the issuer of renewals ends in") == 2
    assert caplog.text.count("run `fl-server ca refresh`") == 4
    trust.remind(NOW + timedelta(days=366))
    assert "the coordinator's certificate has ended" in caplog.text
