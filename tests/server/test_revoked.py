"""The authority's side of revocation: what goes on the list, and what is refused."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from identities import PASSPHRASE
from mammofed_server import ca
from mammofed_shared import pki
from mammofed_shared.errors import IdentityError

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> ca.Authority:
    return ca.init(tmp_path / "authority", "hospitals", ["localhost"], PASSPHRASE, NOW)


def _sign(authority: ca.Authority, site: str) -> tuple[x509.Certificate, bytes, str]:
    key = pki.make_key()
    csr, fingerprint = pki.make_request(key, pki.site_uri("hospitals", site)), pki.fingerprint(key.public_key())
    bundle = ca.sign(authority.folder, csr, site, fingerprint, PASSPHRASE, now=NOW)
    return x509.load_pem_x509_certificates(bundle)[0], csr, fingerprint


def _root(authority: ca.Authority) -> x509.Certificate:
    return x509.load_pem_x509_certificate((authority.folder / "root/certificate.pem").read_bytes())


def _list(authority: ca.Authority, where: str = "server") -> pki.RevocationList:
    path = authority.folder / where / pki.REVOKED_FILE
    return pki.read_revocations(path.read_bytes(), _root(authority), str(path))


def test_a_site_is_revoked_with_every_certificate_that_it_has(authority: ca.Authority) -> None:
    first, csr, _ = _sign(authority, "mayo")
    second, _, _ = _sign(authority, "mayo")
    other, _, _ = _sign(authority, "upmc")
    renewed = ca.renew(authority.folder / ca.RENEWAL, "mayo", csr, first.serial_number, NOW)
    until = ca.revoke(authority.folder, PASSPHRASE, ["mayo"], now=NOW)
    found = _list(authority)
    renewal = x509.load_pem_x509_certificates(renewed)[0]
    assert found.serials == {first.serial_number, second.serial_number, renewal.serial_number}
    assert other.serial_number not in found.serials
    assert (found.number, found.next_update) == (1, until) and until == NOW + timedelta(days=90)
    assert (authority.folder / "revoked.pem").read_bytes() == (authority.folder / "server/revoked.pem").read_bytes()


def test_a_renewal_names_the_certificate_that_its_site_enrolled_with(authority: ca.Authority) -> None:
    enrolled, csr, _ = _sign(authority, "mayo")
    assert pki.enrolment_serial(enrolled) == enrolled.serial_number
    renewed = x509.load_pem_x509_certificates(
        ca.renew(authority.folder / ca.RENEWAL, "mayo", csr, enrolled.serial_number, NOW)
    )[0]
    assert renewed.serial_number != enrolled.serial_number
    assert pki.enrolment_serial(renewed) == enrolled.serial_number


@pytest.mark.parametrize("serial", [1, 127, 128, 2**159 - 1, 2**160 - 1])
def test_every_serial_number_comes_back_from_the_extension(serial: int) -> None:
    value = pki.enrolment_extension(serial).value
    assert value[0] == 2 and value[1] == len(value) - 2
    assert int.from_bytes(value[2:], "big", signed=True) == serial, "a positive INTEGER of DER"


def test_the_list_only_grows_and_is_numbered(authority: ca.Authority) -> None:
    first, _, _ = _sign(authority, "mayo")
    second, _, _ = _sign(authority, "upmc")
    ca.revoke(authority.folder, PASSPHRASE, serials=[f"{first.serial_number:x}"], now=NOW)
    later = NOW + timedelta(days=3)
    ca.revoke(authority.folder, PASSPHRASE, ["upmc"], now=later)
    assert _list(authority).number == 2
    raw = x509.load_pem_x509_crl((authority.folder / "revoked.pem").read_bytes())
    dates = {entry.serial_number: entry.revocation_date_utc for entry in raw}
    assert dates == {first.serial_number: NOW, second.serial_number: later}
    assert ca.revoked_serials(authority.folder) == set(dates)


def test_a_refresh_gives_the_list_another_date_and_keeps_what_is_on_it(authority: ca.Authority) -> None:
    mayo, _, _ = _sign(authority, "mayo")
    ca.refresh(authority.folder, PASSPHRASE, now=NOW)
    assert not (authority.folder / "revoked.pem").exists(), "nothing was revoked, there is no list"
    ca.revoke(authority.folder, PASSPHRASE, ["mayo"], now=NOW)
    ca.refresh(authority.folder, PASSPHRASE, now=NOW + timedelta(days=60))
    found = _list(authority)
    assert found.serials == {mayo.serial_number} and found.number == 2
    assert found.next_update == NOW + timedelta(days=150)


def test_an_issuer_of_renewals_can_be_revoked(authority: ca.Authority) -> None:
    (line,) = [item for item in ca.listing(authority.folder) if item.site == "(renewals)"]
    ca.revoke(authority.folder, PASSPHRASE, serials=[line.serial], now=NOW)
    issuer = x509.load_pem_x509_certificate((authority.folder / "renewal/certificate.pem").read_bytes())
    assert issuer.serial_number in _list(authority).serials


def test_the_key_of_a_revoked_certificate_is_not_signed_again(authority: ca.Authority) -> None:
    _, csr, fingerprint = _sign(authority, "mayo")
    ca.revoke(authority.folder, PASSPHRASE, ["mayo"], now=NOW)
    with pytest.raises(IdentityError, match="a certificate of this key was revoked"):
        ca.sign(authority.folder, csr, "mayo", fingerprint, PASSPHRASE, now=NOW)
    again, _, _ = _sign(authority, "mayo")
    assert again.serial_number not in _list(authority).serials, "with a new key the site is let in again"


@pytest.mark.parametrize(
    ("sites", "serials", "said"),
    [
        ([], [], "nothing to revoke was named"),
        (["emory"], [], "no certificate of a site 'emory'"),
        (["coordinator"], [], "no certificate of a site 'coordinator'"),
        ([], ["12ab"], "not on the lists of this authority"),
        ([], ["-1"], "not on the lists of this authority"),
        ([], ["z" * 1000], "not on the lists of this authority"),
    ],
)
def test_what_was_never_issued_cannot_be_revoked(
    authority: ca.Authority, sites: list[str], serials: list[str], said: str
) -> None:
    with pytest.raises(IdentityError, match=said):
        ca.revoke(authority.folder, PASSPHRASE, sites, serials, NOW)
    assert not (authority.folder / "revoked.pem").exists()


def test_the_servers_certificate_is_not_put_on_a_list_that_no_site_reads(authority: ca.Authority) -> None:
    (line,) = [item for item in ca.listing(authority.folder) if item.site == "coordinator"]
    with pytest.raises(IdentityError, match="sites do not read the list"):
        ca.revoke(authority.folder, PASSPHRASE, serials=[line.serial], now=NOW)


def test_openssl_reads_the_list_and_finds_the_roots_signature_good(authority: ca.Authority) -> None:
    mayo, _, _ = _sign(authority, "mayo")
    ca.revoke(authority.folder, PASSPHRASE, ["mayo"], now=NOW)
    files = ["-in", str(authority.folder / "revoked.pem"), "-CAfile", str(authority.folder / "root/certificate.pem")]
    done = subprocess.run(["openssl", "crl", *files, "-noout", "-text"], capture_output=True, text=True, check=True)
    assert "verify OK" in done.stderr
    assert f"{mayo.serial_number:X}" in done.stdout


def test_a_list_of_another_root_is_foreign(authority: ca.Authority, tmp_path: Path) -> None:
    other = ca.init(tmp_path / "other", "hospitals", ["localhost"], PASSPHRASE, NOW)
    _sign(other, "mayo")
    ca.revoke(other.folder, PASSPHRASE, ["mayo"], now=NOW)
    with pytest.raises(IdentityError, match="root has not signed this list"):
        pki.read_revocations((other.folder / "revoked.pem").read_bytes(), _root(authority), "revoked.pem")


@pytest.mark.parametrize("raw", [b"", b"garbage", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"])
def test_what_is_no_list_is_refused(authority: ca.Authority, raw: bytes) -> None:
    with pytest.raises(IdentityError, match="not a whole list"):
        pki.read_revocations(raw, _root(authority), "revoked.pem")
    with pytest.raises(IdentityError, match="expected at most"):
        pki.read_revocations(bytes(2**20 + 1), _root(authority), "revoked.pem")


def test_a_cut_list_is_refused(authority: ca.Authority) -> None:
    _sign(authority, "mayo")
    ca.revoke(authority.folder, PASSPHRASE, ["mayo"], now=NOW)
    raw = (authority.folder / "revoked.pem").read_bytes()
    for length in range(0, len(raw) - 30, 37):
        with pytest.raises(IdentityError):
            pki.read_revocations(raw[:length], _root(authority), "revoked.pem")
