"""How a site comes by its certificate, and how it renews it.

The key is made here and never leaves this machine. Enrolment is a conversation of people: ``request`` makes
key and request; the lead signs it against the key's fingerprint, told by telephone; ``install`` takes the
bundle that comes back against the root's fingerprint, told by telephone. A renewal needs nobody: the present
certificate proves who asks for the next.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mammofed_shared.errors import IdentityError
from mammofed_shared.files import write_whole
from mammofed_shared.pki import (
    KEY_FILE,
    KEY_MODE,
    NEXT_KEY_FILE,
    PIN_FILE,
    ROOT_FILE,
    Identity,
    certificate_fingerprint,
    check_chain,
    check_pin,
    commit_pair,
    fingerprint,
    key_pem,
    load_identity,
    make_key,
    make_request,
    normal_fingerprint,
    private_folder,
    read_certificates,
    read_key,
    settle,
    site_uri,
)

REQUEST_FILE = "request.csr"
RENEW_WITHIN = timedelta(days=30)
"""A renewal lives at most 90 days: asked for earlier, it could shorten what the lead signed for a year."""


def request(identity_folder: Path, site: str, consortium: str) -> tuple[Path, str]:
    """Make this site's key, if there is none yet, and a request for its certificate.

    Returns:
        The request's file, to be sent to the lead, and the key's fingerprint, to be told by another channel.

    Raises:
        IdentityError: a name is not a slug, or a key is there that cannot serve.
    """
    uri = site_uri(consortium, site)
    private_folder(identity_folder)
    settle(identity_folder)
    path = identity_folder / KEY_FILE
    if not path.exists():
        write_whole(path, key_pem(make_key()), mode=KEY_MODE)
    key = read_key(path)
    write_whole(identity_folder / REQUEST_FILE, make_request(key, uri))
    return identity_folder / REQUEST_FILE, fingerprint(key.public_key())


def install(
    identity_folder: Path,
    bundle_pem: bytes,
    site: str,
    consortium: str,
    root_fingerprint: str,
    now: datetime | None = None,
) -> Identity:
    """Check the bundle that the lead sent, pin its root, and install it, whole or not at all.

    Args:
        identity_folder: where ``request`` was run.
        bundle_pem: the site's chain, then the root.
        site: this site's name.
        consortium: trust domain of the certificates.
        root_fingerprint: of the consortium's root, told by another channel than the bundle.
        now: the machine's clock when not given.

    Raises:
        IdentityError: the root is not the one told or not the one pinned before, or the certificate is not for this
            key, this site, this consortium and this day. Nothing was changed then.
    """
    settle(identity_folder)
    *chain, root = read_certificates(bundle_pem, "the bundle")
    if not chain:
        raise IdentityError("the bundle holds one certificate; expected the site's and the root. Ask for it whole.")
    root_pem = root.public_bytes(Encoding.PEM)
    check_pin(root_pem, root_fingerprint, "the bundle")
    _require_same_root(identity_folder, root_fingerprint)
    wanted = fingerprint(read_key(identity_folder / KEY_FILE).public_key())
    if certificate_fingerprint(chain[0]) != wanted:
        raise IdentityError(
            f"the bundle is for the key {certificate_fingerprint(chain[0])}, this site's is {wanted}. It was made "
            "from another request: send request.csr again."
        )
    check_chain(chain, root, consortium, site, now or datetime.now(UTC))
    write_whole(identity_folder / ROOT_FILE, root_pem)
    write_whole(identity_folder / PIN_FILE, certificate_fingerprint(root) + "\n")
    # Last: without a certificate the folder counts as not enrolled, and this command is run again.
    commit_pair(identity_folder, _as_pem(chain))
    return load_identity(identity_folder, consortium, site, now)


def renewal_due(identity: Identity, now: datetime | None = None) -> bool:
    """Whether less than a third of the certificate's lifetime is left, and less than 30 days."""
    left = identity.not_after - (now or datetime.now(UTC))
    return left < min((identity.not_after - identity.not_before) / 3, RENEW_WITHIN)


def renewal_request(identity_folder: Path) -> bytes:
    """A request for a new key, made beside the present one; the same key as long as no answer came. It names nobody:
    who asks is known by the present certificate.

    Raises:
        IdentityError: a key is there that cannot serve.
    """
    settle(identity_folder)
    path = identity_folder / NEXT_KEY_FILE
    if not path.exists():
        write_whole(path, key_pem(make_key()), mode=KEY_MODE)
    return make_request(read_key(path))


def install_renewal(
    identity_folder: Path, chain_pem: bytes, site: str, consortium: str, now: datetime | None = None
) -> Identity:
    """Check what the coordinator sent as a renewal and change over to it, certificate and key at one moment.

    Raises:
        IdentityError: it is not for the new key, not under the pinned root, not this site's, or ends no later than
            the present one. The present key and certificate stay in place then.
    """
    present = load_identity(identity_folder, consortium, site, now)
    chain = read_certificates(chain_pem, "the renewal")
    wanted = fingerprint(read_key(identity_folder / NEXT_KEY_FILE).public_key())
    if certificate_fingerprint(chain[0]) != wanted:
        raise IdentityError(
            f"the renewal is for the key {certificate_fingerprint(chain[0])}, asked for was {wanted}. The present "
            "certificate stays; the next poll asks again."
        )
    root = read_certificates(present.root_pem, ROOT_FILE)[0]
    check_chain(chain, root, consortium, site, now or datetime.now(UTC))
    if chain[0].not_valid_after_utc <= present.not_after:
        raise IdentityError(
            f"the renewal ends {chain[0].not_valid_after_utc:%Y-%m-%d %H:%M} UTC, no later than the present "
            "certificate. It stays; the lead should run `fl-server ca refresh`."
        )
    commit_pair(identity_folder, _as_pem(chain))
    return load_identity(identity_folder, consortium, site, now)


def _as_pem(chain: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)


def _require_same_root(identity_folder: Path, root_fingerprint: str) -> None:
    path = identity_folder / PIN_FILE
    if not path.exists():
        return
    pinned = normal_fingerprint(path.read_text(encoding="ascii", errors="replace"))
    if pinned != normal_fingerprint(root_fingerprint):
        raise IdentityError(
            f"{path}: this site has pinned the root {pinned}, the bundle is of another. If the consortium was "
            f"founded anew, move {identity_folder} away and enrol again; else ask the lead by telephone."
        )
