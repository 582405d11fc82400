"""The list of certificates that an authority has issued: a JSON line each, on disk before it is given out."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography import x509

from mammofed_shared.errors import IdentityError
from mammofed_shared.pki import certificate_fingerprint, read_name

ISSUED_FILE = "issued.jsonl"
RENEWAL_ISSUER = "(renewals)"
"""Stands for the issuer of renewals in a list; no site can be called so."""


@dataclass(frozen=True, slots=True)
class Issued:
    """One issued certificate; dates in ISO 8601, UTC."""

    serial: str
    """In hexadecimal."""
    site: str
    """The site's name, or ``coordinator``, or ``RENEWAL_ISSUER``."""
    fingerprint: str
    not_before: str
    not_after: str
    issuer: str
    """Common name of the root or of the issuer of renewals."""


def describe(certificate: x509.Certificate) -> Issued:
    """The line of a site's or the server's certificate, or of an issuer of renewals."""
    return Issued(
        serial=f"{certificate.serial_number:x}",
        site=RENEWAL_ISSUER if _is_authority(certificate) else read_name(certificate)[1],
        fingerprint=certificate_fingerprint(certificate),
        not_before=certificate.not_valid_before_utc.isoformat(),
        not_after=certificate.not_valid_after_utc.isoformat(),
        issuer=certificate.issuer.rfc4514_string().removeprefix("CN="),
    )


def _is_authority(certificate: x509.Certificate) -> bool:
    return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def record(path: Path, certificate: x509.Certificate) -> None:
    """Append a certificate's line, durably. Each is one write in append mode, so threads do not mix."""
    line = json.dumps(asdict(describe(certificate)), sort_keys=True).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        # A power cut may have left half a line, of a certificate that nobody got: begin a fresh one after it.
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, b"\n" + line if torn else line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_issued(path: Path) -> list[Issued]:
    """All whole lines of a list, oldest first; empty when there is none yet.

    Raises:
        IdentityError: a line is whole JSON but not one of ours.
    """
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            found.append(Issued(**json.loads(line)))
        except json.JSONDecodeError:
            continue  # half a line of a power cut; see record
        except TypeError as error:
            raise IdentityError(
                f"{path}, line {number}: not a line that `fl-server ca` writes; restore the file."
            ) from error
    return found
