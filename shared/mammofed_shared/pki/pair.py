"""A private key and its certificate chain in one folder, replaced so that no kill parts them.

The one moment that counts is the renaming of ``certificate.pem``. A new key lies beside the old one as
``next-key.pem`` before it; whoever reads takes the key that the certificate is for. Tidying up afterwards may
be lost and made up for.
"""

from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from mammofed_shared.errors import IdentityError
from mammofed_shared.files import fsync_folder, write_whole
from mammofed_shared.pki.keys import certificate_fingerprint, fingerprint, read_key

KEY_FILE = "key.pem"
NEXT_KEY_FILE = "next-key.pem"
CERTIFICATE_FILE = "certificate.pem"


@dataclass(frozen=True, slots=True)
class Pair:
    """A private key and the chain of certificates for it, leaf first, without the root."""

    key_path: Path
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...]
    chain_pem: bytes


def read_certificates(raw: bytes, where: str) -> tuple[x509.Certificate, ...]:
    """All certificates of a PEM text, in their order.

    Raises:
        IdentityError: there is none, or one is damaged.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(raw))
    except ValueError as error:
        raise IdentityError(f"{where}: no certificates in PEM, or a damaged one; install it again.") from error


def read_pair(folder: Path) -> Pair:
    """The certificate of a folder and the key that it is for.

    Raises:
        IdentityError: one of the two is missing or unreadable, or they do not belong together.
    """
    path = folder / CERTIFICATE_FILE
    try:
        chain_pem = path.read_bytes()
    except OSError as error:
        raise IdentityError(f"{path}: the certificate cannot be read: {error.strerror}.") from error
    chain = read_certificates(chain_pem, str(path))
    wanted = certificate_fingerprint(chain[0])
    found = []
    # next-key.pem first: between this file's two renames the old key.pem is still there.
    for name in (NEXT_KEY_FILE, KEY_FILE):
        if name == KEY_FILE or (folder / name).exists():
            key = read_key(folder / name)
            if fingerprint(key.public_key()) == wanted:
                return Pair(folder / name, key, chain, chain_pem)
            found.append(fingerprint(key.public_key()))
    raise IdentityError(
        f"{path} is for the key {wanted}, but {folder / KEY_FILE} is the key {found[-1]}. The certificate was made "
        "from another request: install the one made from this key's, or restore the key."
    )


def settle(folder: Path) -> None:
    """Finish a replacement that a kill cut off after its one moment: the new key takes its usual name."""
    if (folder / NEXT_KEY_FILE).exists() and (folder / CERTIFICATE_FILE).exists():
        raw = (folder / CERTIFICATE_FILE).read_bytes()
        wanted = certificate_fingerprint(read_certificates(raw, str(folder / CERTIFICATE_FILE))[0])
        if fingerprint(read_key(folder / NEXT_KEY_FILE).public_key()) == wanted:
            (folder / NEXT_KEY_FILE).rename(folder / KEY_FILE)
            fsync_folder(folder)


def commit_pair(folder: Path, chain_pem: bytes) -> None:
    """Put a chain for ``next-key.pem`` (or still ``key.pem``) in place, durably."""
    write_whole(folder / CERTIFICATE_FILE, chain_pem)
    settle(folder)
