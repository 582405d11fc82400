"""Keys on the curve P-256, their fingerprints, and signing requests.

A key is made where it is used and never travels. All keys are elliptic-curve keys because the transport
relies on it: with them no cipher of TLS 1.2 that we offer can be agreed (protocol/tls.py).
"""

import re
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mammofed_shared.errors import IdentityError

KEY_MODE = 0o600
"""Mode of a key file: its owner reads and writes it, nobody else."""

MAX_REQUEST_BYTES = 4096
"""One of ours has about 500."""

_REQUEST_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mammofed request")])
_OTHERS = 0o077
_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")


def make_key() -> ec.EllipticCurvePrivateKey:
    """A new private key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> bytes:
    """A private key as PKCS #8 in PEM, encrypted when a passphrase is given."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner can enter; one that exists is left as it is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def read_key(path: Path, passphrase: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """Read a private key that nobody but its owner can read.

    Raises:
        IdentityError: missing, readable by others, not a P-256 key in PEM, or not opened by the passphrase.
    """
    try:
        mode = path.stat().st_mode & 0o777
        raw = path.read_bytes()
    except OSError as error:
        raise IdentityError(f"{path}: the private key cannot be read: {error.strerror}.") from error
    if mode & _OTHERS:
        raise IdentityError(
            f"{path}: the private key can be read by others (mode {mode:04o}, expected 0600). Run `chmod 600 "
            f"{path}`; if others use this machine, make a new key and enrol again."
        )
    try:
        key = serialization.load_pem_private_key(raw, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if passphrase is not None:
            raise IdentityError(
                f"{path}: the passphrase does not open this private key; give the one that `ca init` asked for."
            ) from error
        raise IdentityError(f"{path}: not an unencrypted private key in PEM; restore the file.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(f"{path}: found {type(key).__name__}, expected an elliptic-curve key (P-256).")
    check_p256(key.public_key(), str(path))
    return key


def check_p256(key: object, where: str) -> ec.EllipticCurvePublicKey:
    """The public key, when it is one on P-256.

    Raises:
        IdentityError: it is of another kind.
    """
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    kind = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
    raise IdentityError(f"{where}: found a key of kind {kind}, expected an elliptic-curve key on P-256.")


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """``sha256:`` and 64 hexadecimal digits over the DER of the SubjectPublicKeyInfo (RFC 5280, 4.1)."""
    info = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{sha256(info).hexdigest()}"


def certificate_fingerprint(certificate: x509.Certificate) -> str:
    """The fingerprint of the key that a certificate is for: the same before and after signing."""
    return fingerprint(check_p256(certificate.public_key(), "the certificate"))


def normal_fingerprint(text: str, where: str = "fingerprint") -> str:
    """A fingerprint as typed (spaces, colons between digits, capitals), in the one form that is compared.

    Raises:
        IdentityError: it is not 64 hexadecimal digits.
    """
    digits = re.sub(r"[\s:]", "", text.strip().lower().removeprefix("sha256:"))
    if not _FINGERPRINT.fullmatch(f"sha256:{digits}"):
        raise IdentityError(
            f"{where} {text.strip()!r}: expected sha256: and 64 hexadecimal digits, found {len(digits)} characters. "
            "Copy it whole from what `enrol` or `ca init` printed."
        )
    return f"sha256:{digits}"


def make_request(key: ec.EllipticCurvePrivateKey, uri: str | None = None) -> bytes:
    """A signing request (PKCS #10, PEM). The name that it asks for, if any, is a note: the authority sets it."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_REQUEST_NAME)
    if uri is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def is_bare_request(csr_pem: bytes) -> bool:
    """Whether this is a request as ``make_request`` makes it without a name: it tells a public key and nothing else."""
    try:
        read_request(csr_pem)
        request = x509.load_pem_x509_csr(csr_pem)
    except (IdentityError, ValueError):
        return False
    is_plain = request.subject == _REQUEST_NAME and not len(request.attributes) and not len(request.extensions)
    return is_plain and request.public_bytes(serialization.Encoding.PEM).strip() == csr_pem.strip()


def read_request(csr_pem: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a signing request, all that is taken from it.

    Raises:
        IdentityError: it is too large, not a request in PEM, not of a key on P-256, or its maker does not hold the key.
    """
    if len(csr_pem) > MAX_REQUEST_BYTES:
        raise IdentityError(
            f"the signing request has {len(csr_pem)} bytes, expected at most {MAX_REQUEST_BYTES}; send the file "
            "request.csr that `enrol` made."
        )
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        key = check_p256(request.public_key(), "the signing request")  # first: a huge RSA key is slow to verify with
        held = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise IdentityError("not a signing request in PEM; send the file request.csr that `enrol` made.") from error
    if not held:
        raise IdentityError("the signing request is not signed by its own key; make it again with `enrol`.")
    return key
