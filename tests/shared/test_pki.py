"""What an identity says when it cannot serve, and that names in certificates are read strictly."""

import re
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from identities import Consortium, make_consortium
from mammofed_server import ca
from mammofed_server.certificate import Issuer, renewal_certificate, root_certificate, site_certificate
from mammofed_shared import pki
from mammofed_shared.config.base import Slug
from mammofed_shared.errors import IdentityError
from mammofed_shared.pki.names import SLUG

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SLUGS = TypeAdapter[str](Slug)


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return make_consortium(tmp_path_factory.mktemp("pki"), ["mayo", "upmc"], now=NOW)


@pytest.fixture
def mayo(consortium: Consortium, tmp_path: Path) -> Path:
    """A copy of mayo's identity folder, to be spoiled."""
    return Path(shutil.copytree(consortium.sites["mayo"], tmp_path / "mayo"))


def _load(folder: Path, name: str = "mayo", consortium: str = "hospitals", now: datetime = NOW) -> pki.Identity:
    return pki.load_identity(folder, consortium, name, now)


def test_a_sound_identity_is_loaded_with_its_name_and_end(mayo: Path, consortium: Consortium) -> None:
    identity = _load(mayo)
    assert (identity.name, identity.consortium) == ("mayo", "hospitals")
    assert identity.not_after == NOW + timedelta(days=365)
    assert identity.key_path == mayo / "key.pem"
    assert identity.root_pem == (mayo / "root.pem").read_bytes()
    server = _load(consortium.server, pki.COORDINATOR)
    assert server.name == "coordinator"


def test_an_identity_does_not_show_its_key_when_printed(mayo: Path) -> None:
    identity = _load(mayo)
    assert b"PRIVATE KEY" in identity.key_pem
    assert "PRIVATE" not in repr(identity)


@pytest.mark.parametrize(
    ("file", "advice"),
    [
        ("key.pem", "site-client enrol --site mayo"),
        ("certificate.pem", "request.csr"),
        ("root.pem", "request.csr"),
        ("root.sha256", "request.csr"),
    ],
)
def test_a_missing_file_is_named_with_what_to_do(mayo: Path, file: str, advice: str) -> None:
    (mayo / file).unlink()
    with pytest.raises(IdentityError, match=rf"{re.escape(file)} missing.*{re.escape(advice)}"):
        _load(mayo)


def test_a_missing_folder_asks_to_enrol_or_to_found(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"no identity folder here.*enrol --site mayo"):
        _load(tmp_path / "nothing")
    with pytest.raises(IdentityError, match=r"no identity folder here.*ca init"):
        _load(tmp_path / "nothing", pki.COORDINATOR)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_can_read_is_refused_with_the_command_to_mend_it(mayo: Path, mode: int) -> None:
    (mayo / "key.pem").chmod(mode)
    with pytest.raises(IdentityError, match=rf"read by others \(mode 0{mode:o}.*chmod 600 .*key\.pem"):
        _load(mayo)


def test_a_key_of_another_certificate_is_refused(mayo: Path, consortium: Consortium) -> None:
    shutil.copy(consortium.sites["upmc"] / "key.pem", mayo / "key.pem")
    with pytest.raises(IdentityError, match=r"is for the key sha256:.*is the key sha256:.*another request"):
        _load(mayo)


def test_an_expired_certificate_says_its_end_and_the_clock(mayo: Path) -> None:
    with pytest.raises(
        IdentityError, match=r"site mayo has expired: it ended 2027-03-01 12:00 UTC.*clock says 2027-03-01"
    ):
        _load(mayo, now=NOW + timedelta(days=365))


def test_a_certificate_of_tomorrow_says_its_beginning_and_the_clock(mayo: Path) -> None:
    with pytest.raises(
        IdentityError, match=r"not yet valid: it begins 2026-03-01 11:45 UTC.*clock says 2026-03-01 11:44"
    ):
        _load(mayo, now=NOW - timedelta(minutes=16))
    assert _load(mayo, now=NOW - timedelta(minutes=14)).name == "mayo"  # a slow clock is forgiven


def test_a_certificate_under_another_root_is_foreign(mayo: Path, tmp_path: Path) -> None:
    other = make_consortium(tmp_path / "other", ["mayo"], now=NOW).sites["mayo"]
    for file in ("key.pem", "certificate.pem"):
        shutil.copy(other / file, mayo / file)
    with pytest.raises(IdentityError, match="is foreign: it does not lead to the pinned root"):
        _load(mayo)


def test_a_root_other_than_the_pinned_one_is_refused(mayo: Path, tmp_path: Path) -> None:
    other = make_consortium(tmp_path / "other", ["mayo"], now=NOW).sites["mayo"]
    for file in ("key.pem", "certificate.pem", "root.pem"):
        shutil.copy(other / file, mayo / file)
    with pytest.raises(IdentityError, match=r"the pinned one is sha256:.*Do not go on"):
        _load(mayo)


def test_a_second_root_beside_the_pinned_one_is_refused(mayo: Path, tmp_path: Path) -> None:
    other = make_consortium(tmp_path / "other", [], now=NOW)
    both = (mayo / "root.pem").read_bytes() + (other.server / "root.pem").read_bytes()
    (mayo / "root.pem").write_bytes(both)
    with pytest.raises(IdentityError, match="2 certificates"):
        _load(mayo)


def test_the_certificate_of_another_site_is_refused_with_both_names(consortium: Consortium) -> None:
    with pytest.raises(
        IdentityError,
        match=r"spiffe://hospitals/site/upmc, expected spiffe://hospitals/site/mayo\. Correct --site",
    ):
        _load(consortium.sites["upmc"], "mayo")


def test_the_certificate_of_another_consortium_is_refused_with_both_names(mayo: Path) -> None:
    with pytest.raises(IdentityError, match="spiffe://hospitals/site/mayo, expected spiffe://clinics/site/mayo"):
        _load(mayo, consortium="clinics")


def test_a_sites_identity_does_not_serve_the_coordinator(mayo: Path, consortium: Consortium) -> None:
    with pytest.raises(IdentityError, match="site/mayo, expected spiffe://hospitals/coordinator"):
        _load(mayo, pki.COORDINATOR)
    with pytest.raises(IdentityError, match="coordinator, expected spiffe://hospitals/site/mayo"):
        _load(consortium.server, "mayo")


@pytest.mark.parametrize("file", ["key.pem", "certificate.pem", "root.pem", "root.sha256"])
def test_a_damaged_file_is_an_identity_error_that_names_it(mayo: Path, file: str) -> None:
    raw = (mayo / file).read_bytes()
    (mayo / file).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(IdentityError, match=re.escape(file.removesuffix(".sha256"))):
        _load(mayo)


def _pretend_root() -> tuple[Issuer, ec.EllipticCurvePrivateKey]:
    key = pki.make_key()
    return Issuer(root_certificate(key, "hospitals", NOW, 3650), key), pki.make_key()


def test_an_expired_issuer_is_told_apart_from_an_expired_leaf() -> None:
    root, key = _pretend_root()
    issuer_key = pki.make_key()
    issuer = Issuer(renewal_certificate(root, issuer_key.public_key(), "hospitals", NOW, 2), issuer_key)
    later = Issuer(renewal_certificate(root, issuer_key.public_key(), "hospitals", NOW, 90), issuer_key)
    leaf = site_certificate(later, key.public_key(), "hospitals", "mayo", NOW, 90)
    pki.check_chain([leaf, later.certificate], root.certificate, "hospitals", "mayo", NOW + timedelta(days=3))
    with pytest.raises(IdentityError, match="the issuer of the certificate of site mayo has expired"):
        pki.check_chain([leaf, issuer.certificate], root.certificate, "hospitals", "mayo", NOW + timedelta(days=3))


def test_a_site_cannot_sign_for_another_site() -> None:
    root, key = _pretend_root()
    mayo = Issuer(site_certificate(root, key.public_key(), "hospitals", "mayo", NOW, 90), key)
    forged = site_certificate(mayo, pki.make_key().public_key(), "hospitals", "upmc", NOW, 90)
    with pytest.raises(IdentityError, match="signed by a certificate that may not sign"):
        pki.check_chain([forged, mayo.certificate], root.certificate, "hospitals", "upmc", NOW)


def test_a_chain_of_two_issuers_is_refused() -> None:
    root, key = _pretend_root()
    leaf = site_certificate(root, key.public_key(), "hospitals", "mayo", NOW, 90)
    with pytest.raises(IdentityError, match="comes with 2 issuers; expected at most one"):
        pki.check_chain([leaf, root.certificate, root.certificate], root.certificate, "hospitals", "mayo", NOW)


def _certificate(names: Sequence[x509.GeneralName]) -> x509.Certificate:
    """A certificate with these alternative names, none when empty."""
    key = pki.make_key()
    name = x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), NOW, NOW)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(key, hashes.SHA256())


def _uris(*uris: str) -> x509.Certificate:
    return _certificate([x509.UniformResourceIdentifier(uri) for uri in uris])


def test_names_are_read_as_they_are_written() -> None:
    assert pki.read_name(_uris(pki.site_uri("hospitals", "mayo"))) == ("hospitals", "mayo")
    server = [x509.UniformResourceIdentifier(pki.coordinator_uri("hospitals")), x509.DNSName("localhost")]
    assert pki.read_name(_certificate(server)) == ("hospitals", "coordinator")
    assert pki.authority_consortium(_uris(pki.authority_uri("hospitals"))) == "hospitals"


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://hospitals/site/Mayo",
        "spiffe://hospitals/site/mayo/",
        "spiffe://hospitals/site/mayo/upmc",
        "spiffe://hospitals/site/mayo?x",
        "spiffe://hospitals/site/mayo\n",
        "spiffe://hospitals/site/../mayo",
        "spiffe://hospitals/site/coordinator",
        "spiffe://hospitals:1/site/mayo",
        "spiffe://hospitals/site/",
        "spiffe://hospitals",
        "SPIFFE://hospitals/site/mayo",
        "https://hospitals/site/mayo",
        " spiffe://hospitals/site/mayo",
    ],
)
def test_a_uri_of_another_form_is_nobody(uri: str) -> None:
    with pytest.raises(IdentityError, match="the certificate is for"):
        pki.read_name(_uris(uri))


def test_two_uris_or_none_are_nobody() -> None:
    with pytest.raises(IdentityError, match="holds 2 URIs"):
        pki.read_name(_uris("spiffe://hospitals/site/mayo", "spiffe://hospitals/site/upmc"))
    with pytest.raises(IdentityError, match="holds 0 URIs"):
        pki.read_name(_certificate([x509.DNSName("mayo")]))
    with pytest.raises(IdentityError, match="names nobody"):
        pki.read_name(_certificate([]))


def test_a_site_with_a_host_name_is_refused() -> None:
    names = [x509.UniformResourceIdentifier("spiffe://hospitals/site/mayo"), x509.DNSName("fl.example.org")]
    with pytest.raises(IdentityError, match="2 alternative names; expected its URI alone"):
        pki.read_name(_certificate(names))


def test_no_site_can_be_called_like_the_coordinator() -> None:
    with pytest.raises(IdentityError, match="that name is the server's"):
        pki.site_uri("hospitals", "coordinator")


@settings(deadline=None)
@given(st.text(alphabet="ab9-A/_. \n", max_size=34))
def test_names_are_the_slugs_of_the_configuration(text: str) -> None:
    try:
        SLUGS.validate_python(text)
    except ValidationError:
        allowed = False
    else:
        allowed = True
    assert (re.fullmatch(SLUG, text) is not None) is allowed


def test_a_fingerprint_is_of_the_public_key_alone(mayo: Path) -> None:
    key = pki.read_key(mayo / "key.pem")
    info = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(info)
    expected = f"sha256:{digest.finalize().hex()}"
    assert pki.fingerprint(key.public_key()) == expected
    leaf = pki.read_certificates((mayo / "certificate.pem").read_bytes(), "it")[0]
    assert pki.certificate_fingerprint(leaf) == expected


def test_a_fingerprint_may_be_typed_in_groups_and_capitals() -> None:
    digits = "0123456789abcdef" * 4
    grouped = " ".join(digits[i : i + 4].upper() for i in range(0, 64, 4))
    assert pki.normal_fingerprint(f" SHA256:{grouped}\n") == f"sha256:{digits}"
    with pytest.raises(IdentityError, match="found 63 characters"):
        pki.normal_fingerprint(f"sha256:{digits[:-1]}")


def _save(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> Path:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: rsa.generate_private_key(65537, 1024), "RSAPrivateKey"),
        (lambda: ec.generate_private_key(ec.SECP384R1()), "secp384r1"),
    ],
)
def test_a_key_of_another_kind_is_refused(
    tmp_path: Path, make: Callable[[], ec.EllipticCurvePrivateKey], found: str
) -> None:
    """With an RSA key TLS 1.2 could be agreed again."""
    with pytest.raises(IdentityError, match=f"found .*{found}"):
        pki.read_key(_save(tmp_path / "key.pem", make()))


def test_a_request_gives_its_key_and_nothing_else() -> None:
    key = pki.make_key()
    csr = pki.make_request(key, "spiffe://hospitals/site/mayo")
    assert pki.fingerprint(pki.read_request(csr)) == pki.fingerprint(key.public_key())


def test_a_request_that_its_key_did_not_sign_is_refused() -> None:
    csr = pki.make_request(pki.make_key(), "spiffe://hospitals/site/mayo")
    der = bytearray(x509.load_pem_x509_csr(csr).public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    with pytest.raises(IdentityError, match="not signed by its own key"):
        pki.read_request(forged)
    with pytest.raises(IdentityError, match="not a signing request"):
        pki.read_request(b"hello")


def test_a_kill_after_the_new_certificate_leaves_a_pair_that_loads(mayo: Path) -> None:
    """Between the two renames both keys are there; the certificate decides."""
    old = mayo / "key.pem"
    old.rename(mayo / "next-key.pem")
    pki.private_folder(mayo)
    old.write_bytes(pki.key_pem(pki.make_key()))
    old.chmod(0o600)
    assert pki.read_pair(mayo).key_path == mayo / "next-key.pem"
    assert _load(mayo).key_path == mayo / "next-key.pem"
    pki.settle(mayo)
    assert not (mayo / "next-key.pem").exists()
    assert _load(mayo).key_path == mayo / "key.pem"


def test_a_next_key_without_certificate_changes_nothing(mayo: Path) -> None:
    (mayo / "next-key.pem").write_bytes(pki.key_pem(pki.make_key()))
    (mayo / "next-key.pem").chmod(0o600)
    pki.settle(mayo)
    assert (mayo / "next-key.pem").exists()
    assert _load(mayo).key_path == mayo / "key.pem"


def test_the_authoritys_own_certificates_are_no_identities(consortium: Consortium) -> None:
    root = pki.read_certificates((consortium.server / "root.pem").read_bytes(), "root")[0]
    renewal = pki.read_pair(consortium.authority / ca.RENEWAL).chain[0]
    for certificate in (root, renewal):
        with pytest.raises(IdentityError, match="the certificate is for 'spiffe://hospitals'"):
            pki.read_name(certificate)
