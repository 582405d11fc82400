"""Signatures with the key of a certificate: ECDSA on P-256 with SHA-256 (FIPS 186-5), in base64 of the DER form.

Each signature is for one purpose, whose words stand before what is signed: a receipt can never pass for a statement.
"""

import base64
import binascii
import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from mammofed_shared.errors import IdentityError
from mammofed_shared.files import write_whole
from mammofed_shared.pki.identity import ROOT_FILE, Identity
from mammofed_shared.pki.keys import check_p256
from mammofed_shared.pki.pair import read_certificates

STATEMENT = b"mammofed statement 1\n"
"""A site's word on its contribution."""
RECEIPT = b"mammofed receipt 1\n"
"""The coordinator has taken a statement in."""
LEDGER_LINE = b"mammofed ledger line 1\n"
"""A line of the coordinator's ledger."""

_ALGORITHM = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key, and the digest of the certificate that says whose it is."""

    certificate: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    def sign(self, purpose: bytes, message: bytes) -> str:
        """A signature in base64; another one each time, for ECDSA draws a number."""
        return base64.b64encode(self.key.sign(purpose + message, _ALGORITHM)).decode("ascii")


def signer_of(identity: Identity) -> Signer:
    """What signs in the name of an identity."""
    key = serialization.load_pem_private_key(identity.key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey), "an identity is checked when it is loaded"
    return Signer(certificate_digest(read_certificates(identity.chain_pem, "the certificate")[0]), key)


def is_signed(certificate: x509.Certificate, purpose: bytes, message: bytes, signature: str) -> bool:
    """Whether the holder of a certificate's key has signed the message for this purpose."""
    try:
        raw = base64.b64decode(signature, validate=True)
        if base64.b64encode(raw).decode("ascii") != signature:  # the same bytes in other letters are no proof of them
            return False
        check_p256(certificate.public_key(), "the certificate").verify(raw, purpose + message, _ALGORITHM)
    except (InvalidSignature, IdentityError, binascii.Error, ValueError):
        return False
    return True


def certificate_digest(certificate: x509.Certificate) -> str:
    """SHA-256, hexadecimal, of a certificate's DER: the name of its file in a ``CertificateStore``."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


class CertificateStore:
    """A folder with every certificate that a ledger refers to: ``<digest>.pem``, leaf first, and ``root.pem``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, chain: tuple[x509.Certificate, ...]) -> str:
        """Keep a chain (leaf first, without the root), and give the digest of its leaf."""
        digest = certificate_digest(chain[0])
        self._write(self.path(digest), chain)
        return digest

    def keep_root(self, root_pem: bytes) -> None:
        """Keep the consortium's root."""
        self._write(self.folder / ROOT_FILE, read_certificates(root_pem, ROOT_FILE))

    def _write(self, path: Path, chain: tuple[x509.Certificate, ...]) -> None:
        pem = as_pem(chain)
        if not path.exists() or path.read_bytes() != pem:
            write_whole(path, pem)

    def path(self, digest: str) -> Path:
        """Where the certificate of a digest is, if it is kept."""
        return self.folder / f"{digest}.pem"

    def chain(self, digest: str) -> tuple[x509.Certificate, ...]:
        """The chain whose leaf has this digest.

        Raises:
            IdentityError: it is not kept here, or the file is not as it was written.
        """
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise IdentityError("a certificate is named by something else than a SHA-256")
        return _read(self.path(digest), digest)

    def chains(self) -> list[tuple[x509.Certificate, ...]]:
        """All that are kept and readable, without the root; in the order of their digests."""
        found = []
        for path in sorted(self.folder.glob("*.pem")):
            with suppress(IdentityError):
                found.append(_read(path, path.stem))
        return found

    def root(self) -> x509.Certificate:
        """The consortium's root.

        Raises:
            IdentityError: it is not kept here, or the file is not as it was written.
        """
        return _read(self.folder / ROOT_FILE, None)[0]


def as_pem(chain: tuple[x509.Certificate, ...]) -> bytes:
    """A chain in PEM, in the one form that ``CertificateStore`` writes."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)


def _read(path: Path, digest: str | None) -> tuple[x509.Certificate, ...]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise IdentityError(f"{path.name}: the certificate is not here") from error
    chain = read_certificates(raw, path.name)
    if as_pem(chain) != raw or (digest is not None and certificate_digest(chain[0]) != digest):
        raise IdentityError(f"{path.name}: the certificate is not the one that was written here")
    return chain
