"""An authority's own list of revoked certificates: what stands on it, and how it is made anew. It only ever grows.

<authority>/revoked.pem           the list, an X.509 CRL under the root
<authority>/server/revoked.pem    its copy for the coordinator, which reads it while it runs (trust.py)
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from mammofed_server.certificate import Issuer, revocation_list
from mammofed_server.issued import Issued
from mammofed_shared.errors import IdentityError
from mammofed_shared.files import write_whole
from mammofed_shared.pki import REVOKED_FILE, read_revocations

LIST_DAYS = 90
"""As long as an issuer of renewals lives: `fl-server ca refresh` renews both."""


def revoke_serials(folder: Path, server: Path, root: Issuer, serials: Collection[int], now: datetime) -> datetime:
    """Put serial numbers on the list, and give the moment by which the list must be made anew.

    Args:
        folder: the authority's.
        server: the coordinator's identity folder; it gets the list too where it is on this machine.
        root: with its key.
        serials: those that stand on the list keep their date.
        now: date of the list and of what is new on it.
    """
    path = folder / REVOKED_FILE
    number, revoked = 0, dict[int, datetime]()
    if path.exists():
        raw = path.read_bytes()
        number = read_revocations(raw, root.certificate, str(path)).number
        revoked = {entry.serial_number: entry.revocation_date_utc for entry in x509.load_pem_x509_crl(raw)}
    revoked |= {serial: now for serial in serials if serial not in revoked}
    pem = revocation_list(root, revoked, number + 1, now, LIST_DAYS)
    write_whole(path, pem)
    if server.is_dir():
        write_whole(server / REVOKED_FILE, pem)
    return now + timedelta(days=LIST_DAYS)


def renew_list(folder: Path, server: Path, root: Issuer, now: datetime) -> None:
    """Give the list another 90 days; nothing happens where nothing was ever revoked."""
    if (folder / REVOKED_FILE).exists():
        revoke_serials(folder, server, root, (), now)


def require_not_revoked(folder: Path, root: Issuer, issued: Iterable[Issued], key_fingerprint: str, site: str) -> None:
    """Refuse to sign a key whose certificate was revoked: whoever stole it would be let in again.

    Raises:
        IdentityError: the key is that of a revoked certificate.
    """
    path = folder / REVOKED_FILE
    if not path.exists():
        return
    revoked = read_revocations(path.read_bytes(), root.certificate, str(path)).serials
    for line in issued:
        if line.fingerprint == key_fingerprint and int(line.serial, 16) in revoked:
            raise IdentityError(
                f"site {site}: a certificate of this key was revoked. Nothing was signed: the site must move its "
                "identity folder away and run `site-client enrol` again, which makes another key."
            )
