"""Checks an identity before the first connection.

A refused TLS handshake tells its client nothing but "Socket closed"; here every reason has its words.

An identity folder holds ``key.pem``, ``certificate.pem`` (leaf, then the issuer of renewals if it signed the
leaf), ``root.pem`` (the consortium's root) and ``root.sha256`` (the root's fingerprint, as it was told by
another channel).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from mammofed_shared.errors import IdentityError
from mammofed_shared.pki.keys import certificate_fingerprint, key_pem, normal_fingerprint
from mammofed_shared.pki.names import COORDINATOR, name_uri, read_name
from mammofed_shared.pki.pair import CERTIFICATE_FILE, KEY_FILE, read_certificates, read_pair

ROOT_FILE = "root.pem"
PIN_FILE = "root.sha256"
LONGEST_CHAIN = 2
"""A leaf, and the issuer of renewals if it signed the leaf."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A checked key with its certificates: what a TLS connection needs, all read at one moment."""

    name: str
    """The site's name, or ``COORDINATOR``."""
    consortium: str
    key_path: Path
    key_pem: bytes = field(repr=False)
    chain_pem: bytes = field(repr=False)
    """Leaf first, without the root."""
    root_pem: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime


def load_identity(folder: Path, consortium: str, name: str, now: datetime | None = None) -> Identity:
    """Read an identity folder and check everything that the other side of a connection would refuse.

    Args:
        folder: made by `site-client enrol` or `fl-server ca init`.
        consortium: trust domain that the certificate must be of.
        name: the site's name, or ``COORDINATOR``.
        now: moment of the check; the machine's clock when not given.

    Raises:
        IdentityError: a file is missing, the key is readable by others or belongs to another certificate, a
            certificate is expired, not yet valid, not under the pinned root, or somebody else's.
    """
    _require_files(folder, name)
    root_pem = (folder / ROOT_FILE).read_bytes()
    pin = (folder / PIN_FILE).read_text(encoding="ascii", errors="replace")
    root = check_pin(root_pem, normal_fingerprint(pin, str(folder / PIN_FILE)), str(folder / ROOT_FILE))
    pair = read_pair(folder)
    check_chain(pair.chain, root, consortium, name, now or datetime.now(UTC))
    leaf = pair.chain[0]
    return Identity(
        name=name,
        consortium=consortium,
        key_path=pair.key_path,
        key_pem=key_pem(pair.key),
        chain_pem=pair.chain_pem,
        root_pem=root_pem,
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
    )


def check_pin(root_pem: bytes, pin: str, where: str) -> x509.Certificate:
    """The root certificate, when it is the one whose fingerprint was pinned.

    Raises:
        IdentityError: it is another one, or there is more than one.
    """
    certificates = read_certificates(root_pem, where)
    found = certificate_fingerprint(certificates[0])
    if len(certificates) != 1 or found != normal_fingerprint(pin):
        raise IdentityError(
            f"{where}: the root of the consortium is {found} ({len(certificates)} certificates), but the pinned one "
            f"is {normal_fingerprint(pin)}. Do not go on: ask the consortium's lead by telephone which one is right."
        )
    return certificates[0]


def check_chain(
    chain: Sequence[x509.Certificate], root: x509.Certificate, consortium: str, name: str, now: datetime
) -> None:
    """Check a chain (leaf first, without the root) as the other side of the connection will.

    Raises:
        IdentityError: dates, signatures, the leaf's use or its name are not what they must be; each says which.
    """
    who = "the server's certificate" if name == COORDINATOR else f"the certificate of site {name}"
    if len(chain) > LONGEST_CHAIN:
        raise IdentityError(
            f"{who} comes with {len(chain) - 1} issuers; expected at most one between it and the root. Install the "
            "bundle as the lead sent it."
        )
    for certificate in (*chain, root):
        what = who if certificate is chain[0] else "the root" if certificate is root else f"the issuer of {who}"
        _check_dates(certificate, what, name, now)
    for certificate, issuer in zip(chain, (*chain[1:], root), strict=True):
        _check_signature(certificate, issuer, who, root)
    found_consortium, found_name = read_name(chain[0])
    if (found_consortium, found_name) != (consortium, name):
        raise IdentityError(
            f"{who}: it is for "
            f"spiffe://{found_consortium}/{'' if found_name == COORDINATOR else 'site/'}{found_name}, expected "
            f"{name_uri(consortium, name)}. {_who_is_wrong(name)}"
        )
    _check_use(chain[0], who, name)


def _require_files(folder: Path, name: str) -> None:
    if not folder.is_dir():
        raise IdentityError(f"{folder}: no identity folder here. {_make_it(name)}")
    missing = [file for file in (KEY_FILE, CERTIFICATE_FILE, ROOT_FILE, PIN_FILE) if not (folder / file).is_file()]
    if missing and missing[0] != KEY_FILE and name != COORDINATOR:
        raise IdentityError(
            f"{folder}: {', '.join(missing)} missing: the key is there but not signed yet, or its certificate was "
            "not installed. Give the lead request.csr and the fingerprint, then install the bundle that comes back."
        )
    if missing:
        raise IdentityError(f"{folder}: {', '.join(missing)} missing. {_make_it(name)}")


def _check_dates(certificate: x509.Certificate, what: str, name: str, now: datetime) -> None:
    clock = f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC"
    if now < certificate.not_valid_before_utc:
        raise IdentityError(
            f"{what} is not yet valid: it begins {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, {clock}. Set "
            "the clock right; if it is right, wait."
        )
    if now >= certificate.not_valid_after_utc:
        raise IdentityError(
            f"{what} has expired: it ended {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, {clock}. If the "
            f"clock is right: {_make_again(name)}"
        )


def _check_signature(certificate: x509.Certificate, issuer: x509.Certificate, who: str, root: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise IdentityError(
            f"{who} is foreign: it does not lead to the pinned root {certificate_fingerprint(root)}, it names as "
            f"issuer {certificate.issuer.rfc4514_string()!r}. Install the bundle of the consortium whose root is "
            "pinned here."
        ) from error
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        may_sign = constraints.ca and issuer.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        may_sign = False
    if not may_sign:
        raise IdentityError(f"{who} is signed by a certificate that may not sign others; expected an authority's.")


def _check_use(leaf: x509.Certificate, who: str, name: str) -> None:
    wanted = ExtendedKeyUsageOID.SERVER_AUTH if name == COORDINATOR else ExtendedKeyUsageOID.CLIENT_AUTH
    try:
        uses = list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        uses = []
    if uses != [wanted]:
        role = "a server's" if name == COORDINATOR else "a client's"
        raise IdentityError(f"{who}: its extended key usage is not {role} alone. Have it made again by `fl-server ca`.")


def _make_it(name: str) -> str:
    if name == COORDINATOR:
        return "Run `fl-server ca init`, and set server.identity to its folder server/."
    return f"Run `site-client enrol --site {name}`, or correct the setting identity."


def _make_again(name: str) -> str:
    if name == COORDINATOR:
        return "run `fl-server ca refresh` where the consortium's root key is."
    return f"run `site-client enrol --site {name}` again and have the request signed."


def _who_is_wrong(name: str) -> str:
    if name == COORDINATOR:
        return "Set server.identity to the folder server/ that `fl-server ca init` made for this consortium."
    return "Correct --site or consortium, or point the setting identity at this site's own folder."
