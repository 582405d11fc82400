"""What the authority signs, what it refuses, and what it keeps."""

import json
import stat
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from identities import PASSPHRASE, make_consortium
from mammofed_server import ca
from mammofed_server.certificate import hosts_of
from mammofed_shared import pki
from mammofed_shared.errors import IdentityError

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def authority(tmp_path: Path) -> ca.Authority:
    return ca.init(tmp_path / "authority", "hospitals", ["fl.example.org", "10.0.0.7"], PASSPHRASE, NOW)


def _request(uri: str = "spiffe://hospitals/site/mayo") -> tuple[bytes, str]:
    key = pki.make_key()
    return pki.make_request(key, uri), pki.fingerprint(key.public_key())


def _files(folder: Path) -> Mapping[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _leaf(bundle: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificates(bundle)[0]


def _extension(certificate: x509.Certificate, kind: type[Any]) -> Any:
    return certificate.extensions.get_extension_for_class(kind).value


def test_a_new_authority_serves_at_once(authority: ca.Authority) -> None:
    identity = pki.load_identity(authority.folder / ca.SERVER, "hospitals", pki.COORDINATOR, NOW)
    assert (authority.folder / ca.SERVER / "root.sha256").read_text().strip() == authority.root_fingerprint
    assert hosts_of(_leaf(identity.chain_pem)) == ["fl.example.org", "10.0.0.7"]
    assert [line.site for line in ca.listing(authority.folder)] == ["coordinator", "(renewals)"]


def test_keys_are_readable_by_their_owner_only(authority: ca.Authority) -> None:
    assert _mode(authority.folder / "root" / "key.pem") == 0o400
    assert _mode(authority.folder / "renewal" / "key.pem") == 0o600
    assert _mode(authority.folder / "server" / "key.pem") == 0o600
    for folder in (authority.folder, *(authority.folder / name for name in ("root", "renewal", "server"))):
        assert _mode(folder) == 0o700


def test_the_roots_key_is_encrypted_and_opened_by_its_passphrase_alone(authority: ca.Authority) -> None:
    path = authority.folder / "root" / "key.pem"
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in path.read_bytes()
    assert pki.fingerprint(pki.read_key(path, PASSPHRASE).public_key()) == authority.root_fingerprint
    csr, fingerprint = _request()
    with pytest.raises(IdentityError, match="the passphrase does not open"):
        ca.sign(authority.folder, csr, "mayo", fingerprint, b"another passphrase", now=NOW)


def test_an_authority_is_never_overwritten(authority: ca.Authority) -> None:
    before = _files(authority.folder)
    with pytest.raises(IdentityError, match="never overwritten"):
        ca.init(authority.folder, "hospitals", ["localhost"], PASSPHRASE, NOW)
    assert _files(authority.folder) == before


@pytest.mark.parametrize(
    ("consortium", "hosts", "passphrase", "match"),
    [
        ("hospitals", ["localhost"], b"short", "has 5 bytes; expected at least 12"),
        ("Hospitals!", ["localhost"], PASSPHRASE, "consortium 'Hospitals!'"),
        ("hospitals", [], PASSPHRASE, "no host was given"),
        ("hospitals", ["localhost:9443"], PASSPHRASE, "without port"),
    ],
)
def test_an_authority_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, consortium: str, hosts: list[str], passphrase: bytes, match: str
) -> None:
    with pytest.raises(IdentityError, match=match):
        ca.init(tmp_path / "authority", consortium, hosts, passphrase, NOW)
    assert list(tmp_path.iterdir()) == []


def test_certificates_have_the_profile_of_the_documentation(authority: ca.Authority) -> None:
    csr, fingerprint = _request()
    leaf, root = x509.load_pem_x509_certificates(
        ca.sign(authority.folder, csr, "mayo", fingerprint, PASSPHRASE, now=NOW)
    )
    renewal = pki.read_pair(authority.folder / "renewal").chain[0]
    server = pki.read_pair(authority.folder / "server").chain[0]
    client, host = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
    table = {
        root: (True, 1, None, 3650),
        renewal: (True, 0, client, 90),
        server: (False, None, host, 365),
        leaf: (False, None, client, 365),
    }
    for certificate, (is_authority, path_length, use, days) in table.items():
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical
        assert (constraints.value.ca, constraints.value.path_length) == (is_authority, path_length)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert (usage.value.key_cert_sign, usage.value.digital_signature) == (is_authority, not is_authority)
        if use is not None:
            assert list(_extension(certificate, x509.ExtendedKeyUsage)) == [use]
        assert certificate.not_valid_after_utc == NOW + timedelta(days=days)
        assert certificate.not_valid_before_utc == NOW - timedelta(minutes=15)
        assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
        if certificate is not root:
            issuer = _extension(root, x509.SubjectKeyIdentifier).digest
            assert _extension(certificate, x509.AuthorityKeyIdentifier).key_identifier == issuer
    assert len({certificate.serial_number for certificate in table}) == 4


def test_a_request_gets_the_name_that_the_lead_says_whatever_it_asks_for(authority: ca.Authority) -> None:
    key = pki.make_key()
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fl.example.org")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.UniformResourceIdentifier("spiffe://hospitals/coordinator"),
                    x509.DNSName("fl.example.org"),
                ]
            ),
            critical=False,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    leaf = _leaf(ca.sign(authority.folder, greedy, "mayo", pki.fingerprint(key.public_key()), PASSPHRASE, now=NOW))
    assert pki.read_name(leaf) == ("hospitals", "mayo")
    assert len(list(_extension(leaf, x509.SubjectAlternativeName))) == 1
    assert not _extension(leaf, x509.BasicConstraints).ca
    assert list(_extension(leaf, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert "example" not in leaf.subject.rfc4514_string()


def test_a_request_of_another_key_than_was_told_is_not_signed(authority: ca.Authority) -> None:
    csr, fingerprint = _request()
    _, other = _request()
    before = ca.listing(authority.folder)
    with pytest.raises(IdentityError, match=f"request is for the key {fingerprint}.*told is {other}"):
        ca.sign(authority.folder, csr, "mayo", other, PASSPHRASE, now=NOW)
    assert ca.listing(authority.folder) == before


@pytest.mark.parametrize("site", ["coordinator", "Mayo", "../mayo", ""])
def test_a_name_that_is_no_sites_is_not_signed(authority: ca.Authority, site: str) -> None:
    csr, fingerprint = _request()
    with pytest.raises(IdentityError, match="site"):
        ca.sign(authority.folder, csr, site, fingerprint, PASSPHRASE, now=NOW)
    assert len(ca.listing(authority.folder)) == 2, "as after init"


def test_a_request_with_an_rsa_key_is_refused(authority: ca.Authority) -> None:
    key = rsa.generate_private_key(65537, 1024)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    with pytest.raises(IdentityError, match="expected an elliptic-curve key on P-256"):
        ca.sign(authority.folder, csr, "mayo", "sha256:" + 64 * "0", PASSPHRASE, now=NOW)


def test_what_was_signed_is_listed(authority: ca.Authority) -> None:
    csr, fingerprint = _request()
    leaf = _leaf(ca.sign(authority.folder, csr, "mayo", fingerprint, PASSPHRASE, days=30, now=NOW))
    line = ca.listing(authority.folder)[-1]
    assert (line.site, line.fingerprint, line.issuer) == ("mayo", fingerprint, "hospitals root")
    assert int(line.serial, 16) == leaf.serial_number
    assert datetime.fromisoformat(line.not_after) == NOW + timedelta(days=30)


def test_a_line_cut_by_a_power_cut_costs_no_other(authority: ca.Authority) -> None:
    path = authority.folder / "issued.jsonl"
    path.write_bytes(path.read_bytes() + b'{"serial": "12", "si')
    csr, fingerprint = _request()
    ca.sign(authority.folder, csr, "mayo", fingerprint, PASSPHRASE, now=NOW)
    assert [line.site for line in ca.listing(authority.folder)] == ["coordinator", "(renewals)", "mayo"]


def test_a_line_of_another_kind_is_refused(authority: ca.Authority) -> None:
    path = authority.folder / "issued.jsonl"
    path.write_text(json.dumps({"who": "mayo"}) + "\n")
    with pytest.raises(IdentityError, match=r"issued\.jsonl, line 1"):
        ca.listing(authority.folder)


def test_there_is_no_list_where_there_is_no_authority(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="no certificate authority here"):
        ca.listing(tmp_path)


def test_a_renewal_is_for_the_peers_site_and_needs_no_root_key(authority: ca.Authority) -> None:
    (authority.folder / "root" / "key.pem").unlink()
    csr, fingerprint = _request("spiffe://hospitals/site/upmc")
    chain = x509.load_pem_x509_certificates(ca.renew(authority.folder / "renewal", "mayo", csr, 7, NOW))
    root = _leaf((authority.folder / "server" / "root.pem").read_bytes())
    assert len(chain) == 2
    pki.check_chain(chain, root, "hospitals", "mayo", NOW)
    line = ca.listing(authority.folder)[-1]
    assert (line.site, line.fingerprint, line.issuer) == ("mayo", fingerprint, "hospitals renewal")


def test_a_renewal_ends_with_its_issuer(authority: ca.Authority) -> None:
    csr, _ = _request()
    chain = ca.renew(authority.folder / "renewal", "mayo", csr, 7, NOW + timedelta(days=60))
    assert _leaf(chain).not_valid_after_utc == NOW + timedelta(days=90)


@pytest.mark.parametrize("days", [-1, 89, 91])
def test_an_issuer_that_has_ended_renews_nothing(authority: ca.Authority, days: int) -> None:
    csr, _ = _request()
    with pytest.raises(IdentityError, match=r"issuer of renewals serves from .*ca refresh"):
        ca.renew(authority.folder / "renewal", "mayo", csr, 7, NOW + timedelta(days=days))


def test_a_refresh_changes_the_servers_keys_and_no_sites(tmp_path: Path) -> None:
    consortium = make_consortium(tmp_path, ["mayo"], now=NOW)
    old = {name: pki.read_pair(consortium.authority / name) for name in ("renewal", "server")}
    later = NOW + timedelta(days=80)
    end = ca.refresh(consortium.authority, PASSPHRASE, now=later)
    assert end == later + timedelta(days=90)
    for name, pair in old.items():
        new = pki.read_pair(consortium.authority / name)
        assert pki.certificate_fingerprint(new.chain[0]) != pki.certificate_fingerprint(pair.chain[0])
        assert new.key_path.name == "key.pem"
    server = pki.load_identity(consortium.server, consortium.name, pki.COORDINATOR, later)
    assert hosts_of(_leaf(server.chain_pem)) == hosts_of(old["server"].chain[0])
    assert pki.load_identity(consortium.sites["mayo"], consortium.name, "mayo", later).root_pem == server.root_pem


def test_a_refresh_takes_new_hosts(authority: ca.Authority) -> None:
    ca.refresh(authority.folder, PASSPHRASE, ["fl2.example.org"], NOW)
    assert hosts_of(pki.read_pair(authority.folder / "server").chain[0]) == ["fl2.example.org"]


def test_signing_without_the_roots_key_says_where_to_do_it(authority: ca.Authority) -> None:
    (authority.folder / "root" / "key.pem").unlink()
    csr, fingerprint = _request()
    with pytest.raises(IdentityError, match="the root's key is not here"):
        ca.sign(authority.folder, csr, "mayo", fingerprint, PASSPHRASE, now=NOW)
