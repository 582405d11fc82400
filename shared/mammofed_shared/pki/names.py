"""How a site, the coordinator and the consortium's authority are named in a certificate: as a SPIFFE URI.

``spiffe://<consortium>/site/<name>`` is a site, ``spiffe://<consortium>/coordinator`` the server,
``spiffe://<consortium>`` an authority. The common name of a certificate is for human eyes and is never read.
"""

import re

from cryptography import x509

from mammofed_shared.errors import IdentityError

COORDINATOR = "coordinator"
"""The name under which the server's identity is loaded. No site may bear it."""

# The slug of config.base.Slug; config and pki must not import each other, so a test holds the two together.
SLUG = r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?"
_PEER = re.compile(rf"spiffe://(?P<consortium>{SLUG})/(?:site/(?P<site>{SLUG})|coordinator)")
_AUTHORITY = re.compile(rf"spiffe://(?P<consortium>{SLUG})")

ENROLMENT = x509.ObjectIdentifier("2.25.190718836356733291853357953254460980241")
"""Extension of a renewed certificate: the serial number (DER INTEGER) of the certificate that the root signed when the
site enrolled. An arc below 2.25 needs no registry (ITU-T X.667)."""


def site_uri(consortium: str, site: str) -> str:
    """The URI that is a site.

    Raises:
        IdentityError: one of the names is not a slug, or the site is called like the coordinator.
    """
    if site == COORDINATOR:
        raise IdentityError(f"a site cannot be called {COORDINATOR!r}: that name is the server's. Choose another.")
    return f"{authority_uri(consortium)}/site/{_slug('site', site)}"


def coordinator_uri(consortium: str) -> str:
    """The URI that is the consortium's server."""
    return f"{authority_uri(consortium)}/{COORDINATOR}"


def authority_uri(consortium: str) -> str:
    """The URI of the consortium itself: in the certificates of its root and of the issuer of renewals."""
    return f"spiffe://{_slug('consortium', consortium)}"


def name_uri(consortium: str, name: str) -> str:
    """The URI of a site, or of the server when ``name`` is ``COORDINATOR``."""
    return coordinator_uri(consortium) if name == COORDINATOR else site_uri(consortium, name)


def read_name(certificate: x509.Certificate) -> tuple[str, str]:
    """The consortium and the name (a site's, or ``COORDINATOR``) that a certificate is for.

    Raises:
        IdentityError: there is not exactly one URI, it is not one of the two forms, or a site's certificate holds
            other names (a DNS name would let a site pass for a server).
    """
    names = _alternative_names(certificate)
    match = _PEER.fullmatch(_only_uri(names))
    if match is None or match["site"] == COORDINATOR:
        raise IdentityError(
            f"the certificate is for {_only_uri(names)!r}; expected spiffe://<consortium>/site/<name> or "
            f"spiffe://<consortium>/{COORDINATOR}. It was not made by `fl-server ca`; ask for one that was."
        )
    if match["site"] is not None and len(names) != 1:
        raise IdentityError(
            f"the certificate of site {match['site']} holds {len(names)} alternative names; expected its URI alone. "
            "It was not made by `fl-server ca sign`; ask for one that was."
        )
    return match["consortium"], match["site"] or COORDINATOR


def authority_consortium(certificate: x509.Certificate) -> str:
    """The consortium whose root or issuer of renewals this certificate is.

    Raises:
        IdentityError: it is not the certificate of an authority of ours.
    """
    uri = _only_uri(_alternative_names(certificate))
    match = _AUTHORITY.fullmatch(uri)
    if match is None:
        raise IdentityError(f"the certificate is for {uri!r}; expected an authority's, spiffe://<consortium>.")
    return match["consortium"]


def enrolment_extension(serial: int) -> x509.UnrecognizedExtension:
    """What a renewed certificate says of the one that its site enrolled with."""
    length = serial.bit_length() // 8 + 1  # a leading zero bit keeps it positive; serial numbers end at 20 bytes
    return x509.UnrecognizedExtension(ENROLMENT, bytes([2, length]) + serial.to_bytes(length, "big"))


def enrolment_serial(certificate: x509.Certificate) -> int:
    """The serial number of the certificate that a site enrolled with: its own where it was never renewed.

    Raises:
        IdentityError: the extension is not what ``enrolment_extension`` makes.
    """
    try:
        value = certificate.extensions.get_extension_for_oid(ENROLMENT).value
    except x509.ExtensionNotFound:
        return certificate.serial_number
    raw = value.value if isinstance(value, x509.UnrecognizedExtension) else b""
    if len(raw) < 3 or raw[0] != 2 or raw[1] != len(raw) - 2:
        raise IdentityError("the certificate does not say what it was enrolled by; the site must enrol again.")
    return int.from_bytes(raw[2:], "big")


def _slug(what: str, name: str) -> str:
    if not re.fullmatch(SLUG, name):
        raise IdentityError(
            f"{what} {name!r}: expected 1 to 32 lower-case letters, digits and inner dashes, such as 'mayo'."
        )
    return name


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise IdentityError(
            "the certificate names nobody (no readable subject alternative name); expected one spiffe:// URI. It "
            "was not made by `fl-server ca`; ask for one that was."
        ) from error


def _only_uri(names: x509.SubjectAlternativeName) -> str:
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise IdentityError(
            f"the certificate holds {len(uris)} URIs as alternative names; expected exactly one, spiffe://…. It was "
            "not made by `fl-server ca`; ask for one that was."
        )
    return uris[0]
