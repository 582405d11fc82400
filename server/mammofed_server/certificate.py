"""The four kinds of certificate of a consortium and its list of revoked ones, and how each is made (docs/security.md).

=======  ================================  =========  =============================  ===============
kind     name (URI)                        authority  use                            signed by
=======  ================================  =========  =============================  ===============
root     ``spiffe://<consortium>``         path 1     signs certificates             itself
renewal  ``spiffe://<consortium>``         path 0     signs certificates of clients  root
server   ``spiffe://<consortium>/…``       no         server, with its hosts         root
site     ``spiffe://<consortium>/site/…``  no         client                         root or renewal
=======  ================================  =========  =============================  ===============
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mammofed_shared.errors import IdentityError
from mammofed_shared.pki import authority_uri, coordinator_uri, enrolment_extension, site_uri

BACKDATED = timedelta(minutes=15)
"""A certificate begins a little early, for machines whose clocks are slow."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """A key that may sign, with its certificate."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)


def root_certificate(key: ec.EllipticCurvePrivateKey, consortium: str, now: datetime, days: int) -> x509.Certificate:
    """The consortium's root: signed by itself, may sign one authority below it."""
    name = _common_name(f"{consortium} root")
    builder = _builder(name, key.public_key(), now, now + timedelta(days=days)).issuer_name(name)
    return _authority(builder, consortium, path_length=1).sign(key, hashes.SHA256())


def renewal_certificate(
    root: Issuer, public_key: ec.EllipticCurvePublicKey, consortium: str, now: datetime, days: int
) -> x509.Certificate:
    """The issuer of renewals: signs certificates of clients only, so its thief cannot play the server."""
    builder = _signed_by(root, f"{consortium} renewal", public_key, now, days)
    builder = _authority(builder, consortium, path_length=0)
    return _use(builder, ExtendedKeyUsageOID.CLIENT_AUTH).sign(root.key, hashes.SHA256())


def server_certificate(
    root: Issuer,
    public_key: ec.EllipticCurvePublicKey,
    consortium: str,
    hosts: Sequence[str],
    now: datetime,
    days: int,
) -> x509.Certificate:
    """The server's certificate, valid for these DNS names and IP addresses."""
    names = [x509.UniformResourceIdentifier(coordinator_uri(consortium)), *map(_host, hosts)]
    builder = _leaf(_signed_by(root, f"{consortium} server", public_key, now, days), names)
    return _use(builder, ExtendedKeyUsageOID.SERVER_AUTH).sign(root.key, hashes.SHA256())


def site_certificate(
    issuer: Issuer,
    public_key: ec.EllipticCurvePublicKey,
    consortium: str,
    site: str,
    now: datetime,
    days: int,
    enrolment: int | None = None,
) -> x509.Certificate:
    """A site's certificate; its URI is its only name. It ends no later than its issuer's.

    A renewal says by ``enrolment`` which certificate the root had signed for this site: revoking that one revokes all.
    """
    names = [x509.UniformResourceIdentifier(site_uri(consortium, site))]
    # The space keeps the common name from ever passing for a host name.
    builder = _leaf(_signed_by(issuer, f"{consortium} site {site}", public_key, now, days), names)
    if enrolment is not None:
        builder = builder.add_extension(enrolment_extension(enrolment), critical=False)
    return _use(builder, ExtendedKeyUsageOID.CLIENT_AUTH).sign(issuer.key, hashes.SHA256())


def revocation_list(root: Issuer, revoked: Mapping[int, datetime], number: int, now: datetime, days: int) -> bytes:
    """The list of revoked certificates (serial number → since when), PEM, signed by the root."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.certificate.subject)
        .last_update(now - BACKDATED)
        .next_update(now + timedelta(days=days))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_key(root), critical=False)
    )
    for serial, since in sorted(revoked.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(root.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The DNS names and IP addresses of a server's certificate."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [
        *names.get_values_for_type(x509.DNSName),
        *(str(address) for address in names.get_values_for_type(x509.IPAddress)),
    ]


def _signed_by(
    issuer: Issuer, name: str, public_key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    not_after = min(now + timedelta(days=days), issuer.certificate.not_valid_after_utc)
    builder = _builder(_common_name(name), public_key, now, not_after).issuer_name(issuer.certificate.subject)
    return builder.add_extension(_authority_key(issuer), critical=False)


def _authority_key(issuer: Issuer) -> x509.AuthorityKeyIdentifier:
    """The issuer's key and, by issuer and serial number, its certificate (RFC 5280, section 4.2.1.1).

    The coordinator finds a revoked issuer of renewals by it: a TLS session that is resumed brings the leaf alone.
    """
    certificate = issuer.certificate
    identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier(
        identifier.key_identifier, [x509.DirectoryName(certificate.issuer)], certificate.serial_number
    )


def _builder(
    name: x509.Name, public_key: ec.EllipticCurvePublicKey, now: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _authority(builder: x509.CertificateBuilder, consortium: str, path_length: int) -> x509.CertificateBuilder:
    names = [x509.UniformResourceIdentifier(authority_uri(consortium))]
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )


def _leaf(builder: x509.CertificateBuilder, names: Sequence[x509.GeneralName]) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )


def _use(builder: x509.CertificateBuilder, use: x509.ObjectIdentifier) -> x509.CertificateBuilder:
    return builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)


def _key_usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(name: str) -> x509.Name:
    # X.520 ends a common name at 64 characters; two slugs and their words can be longer by a few.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        if not host or ":" in host or "/" in host:
            raise ValueError("not a bare name")
        return x509.DNSName(host)
    except ValueError as error:
        raise IdentityError(f"host {host!r}: expected a DNS name or an IP address without port.") from error
