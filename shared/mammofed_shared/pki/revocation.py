"""The list of revoked certificates: an X.509 CRL (RFC 5280, section 5) that the consortium's root has signed.

It names serial numbers of certificates of any issuer of the consortium: they are random numbers of 159 bits, so no two
certificates share one, whoever signed them. What a renewed certificate was enrolled by stands in the certificate itself
(``names.enrolment_serial``), so the root can shut out renewals that it has never seen.
"""

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from mammofed_shared.errors import IdentityError

REVOKED_FILE = "revoked.pem"
MAX_LIST_BYTES = 2**20
"""A list of ten thousand certificates; a larger file is an accident."""


@dataclass(frozen=True, slots=True)
class RevocationList:
    """What a list says, once its signature was found good."""

    number: int
    """Grows with each list of an authority."""
    serials: frozenset[int]
    next_update: datetime
    """By then the authority has made another one; a list that is older may hide what was revoked since."""


def read_revocations(raw: bytes, root: x509.Certificate, where: str) -> RevocationList:
    """The list in a PEM text, when the consortium's root has signed it. Its date is not looked at.

    Raises:
        IdentityError: it is damaged, too large, of another authority, or not of the form that `fl-server ca` makes.
    """
    remedy = "Copy it again from the machine where `fl-server ca revoke` was run."
    if len(raw) > MAX_LIST_BYTES:
        raise IdentityError(f"{where}: {len(raw)} bytes, expected at most {MAX_LIST_BYTES}. {remedy}")
    try:
        found = x509.load_pem_x509_crl(raw)
        number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        serials = frozenset(entry.serial_number for entry in found)
        key = root.public_key()
        signed = isinstance(key, ec.EllipticCurvePublicKey) and found.is_signature_valid(key)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
        raise IdentityError(f"{where}: not a whole list of revoked certificates in PEM. {remedy}") from error
    if not signed or found.issuer != root.subject:
        raise IdentityError(f"{where}: the consortium's root has not signed this list. {remedy}")
    if found.next_update_utc is None:
        raise IdentityError(f"{where}: the list does not say until when it holds. {remedy}")
    return RevocationList(number, serials, found.next_update_utc)
