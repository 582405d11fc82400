"""The consortium's certificate authority: made once, signs sites, lets the running server renew.

A folder of an authority, parts of which may live apart::

    root/     key.pem (encrypted, 0400), certificate.pem   may be kept offline: for sign and refresh only
    renewal/  key.pem, certificate.pem, issued.jsonl       the one signing key that a running server loads
    server/   key.pem, certificate.pem, root.pem, root.sha256    the server's own identity
    issued.jsonl                                           what the root signed
    revoked.pem                                            what was revoked (revoked.py); a copy lies in server/
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from mammofed_server.certificate import (
    Issuer,
    hosts_of,
    renewal_certificate,
    root_certificate,
    server_certificate,
    site_certificate,
)
from mammofed_server.issued import ISSUED_FILE, RENEWAL_ISSUER, Issued, read_issued, record
from mammofed_server.revoked import renew_list, require_not_revoked, revoke_serials
from mammofed_shared.errors import IdentityError
from mammofed_shared.files import fsync_folder, write_whole
from mammofed_shared.pki import (
    CERTIFICATE_FILE,
    COORDINATOR,
    KEY_FILE,
    KEY_MODE,
    NEXT_KEY_FILE,
    PIN_FILE,
    REVOKED_FILE,
    ROOT_FILE,
    authority_consortium,
    authority_uri,
    certificate_fingerprint,
    commit_pair,
    fingerprint,
    key_pem,
    make_key,
    normal_fingerprint,
    private_folder,
    read_certificates,
    read_key,
    read_pair,
    read_request,
    read_revocations,
    settle,
)

ROOT_DAYS = 3650
RENEWAL_DAYS = 90
LEAF_DAYS = 365
MIN_PASSPHRASE = 12
"""Shortest passphrase in bytes: `cryptography` stretches one by 2048 rounds only, so length must do it."""

MIN_LIFETIME = timedelta(days=1)
"""An issuer with less than this left signs nothing more: what it signs ends with it."""

ROOT, RENEWAL, SERVER = "root", "renewal", "server"


@dataclass(frozen=True, slots=True)
class Authority:
    """What `fl-server ca init` tells its caller."""

    folder: Path
    consortium: str
    root_fingerprint: str
    """Told to every site by another channel than the bundle."""


def init(
    folder: Path, consortium: str, hosts: Sequence[str], passphrase: bytes, now: datetime | None = None
) -> Authority:
    """Make a consortium's authority and its server's identity in an empty or new folder, whole or not at all.

    Args:
        folder: where; see the head of this file.
        consortium: trust domain of all certificates.
        hosts: DNS names and IP addresses under which sites reach the server; at least one.
        passphrase: encrypts the root's key.
        now: beginning of all certificates; the machine's clock when not given.

    Raises:
        IdentityError: there is something in the folder already, or an argument cannot serve.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise IdentityError(
            f"{folder}: not empty, and a certificate authority is never overwritten: all its sites would have to "
            "enrol again. Choose another folder, or use the authority that is there."
        )
    if len(passphrase) < MIN_PASSPHRASE:
        raise IdentityError(
            f"the passphrase has {len(passphrase)} bytes; expected at least {MIN_PASSPHRASE}. Choose a longer one."
        )
    authority_uri(consortium)
    moment = now or datetime.now(UTC)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        unfinished = Path(temporary) / folder.name
        private_folder(unfinished)
        key = make_key()
        root = Issuer(root_certificate(key, consortium, moment, ROOT_DAYS), key)
        private_folder(unfinished / ROOT)
        write_whole(unfinished / ROOT / KEY_FILE, key_pem(key, passphrase), mode=0o400)
        write_whole(unfinished / ROOT / CERTIFICATE_FILE, root.certificate.public_bytes(Encoding.PEM))
        _issue_online(unfinished, root, consortium, hosts, moment)
        unfinished.rename(folder)
    fsync_folder(folder.parent)
    return Authority(folder, consortium, certificate_fingerprint(root.certificate))


def refresh(folder: Path, passphrase: bytes, hosts: Sequence[str] = (), now: datetime | None = None) -> datetime:
    """Give the server a new key and certificate, renewals a new issuer, the list of revoked certificates a new date.

    Sites notice nothing.

    To be run before the issuer of renewals ends (90 days), and when the server gets another address.

    Args:
        folder: the authority's.
        passphrase: of the root's key.
        hosts: as in ``init``; those of the present certificate when empty.
        now: the machine's clock when not given.

    Returns:
        The moment by which it must be run again.
    """
    moment = now or datetime.now(UTC)
    root = open_root(folder, passphrase, moment)
    present = read_pair(folder / SERVER).chain[0]
    renew_list(folder, folder / SERVER, root, moment)
    _issue_online(folder, root, authority_consortium(root.certificate), hosts or hosts_of(present), moment)
    return read_pair(folder / RENEWAL).chain[0].not_valid_after_utc


def sign(
    folder: Path,
    csr_pem: bytes,
    site: str,
    told_fingerprint: str,
    passphrase: bytes,
    days: int = LEAF_DAYS,
    now: datetime | None = None,
) -> bytes:
    """Sign a site's request with the root, and note it in the list.

    Args:
        folder: the authority's.
        csr_pem: the site's request; nothing but its key is taken from it.
        site: the name that the certificate will be for, by the lead's word.
        told_fingerprint: of the site's key, told by another channel than the request.
        passphrase: of the root's key.
        days: lifetime; cut at the root's own end.
        now: the machine's clock when not given.

    Returns:
        The bundle for the site, PEM: its certificate, then the root.

    Raises:
        IdentityError: the request is another key's than the fingerprint tells, that key was revoked, or the root cannot
            be opened.
    """
    key = read_request(csr_pem)
    if fingerprint(key) != normal_fingerprint(told_fingerprint):
        raise IdentityError(
            f"site {site}: the request is for the key {fingerprint(key)}, but the fingerprint told is "
            f"{normal_fingerprint(told_fingerprint)}. Nothing was signed: ask the site by telephone what `enrol` "
            "printed."
        )
    if days < 1:
        raise IdentityError(f"days is {days}; expected at least 1.")
    moment = now or datetime.now(UTC)
    root = open_root(folder, passphrase, moment)
    require_not_revoked(folder, root, listing(folder), fingerprint(key), site)
    certificate = site_certificate(root, key, authority_consortium(root.certificate), site, moment, days)
    record(folder / ISSUED_FILE, certificate)
    return certificate.public_bytes(Encoding.PEM) + root.certificate.public_bytes(Encoding.PEM)


def renew(issuer_folder: Path, peer_site: str, csr_pem: bytes, enrolment: int, now: datetime | None = None) -> bytes:
    """Sign the request of a site that has just proved who it is, for that same site and no other.

    Args:
        issuer_folder: the authority's folder ``renewal``; nothing outside it is read.
        peer_site: from ``protocol.tls.peer_of``, never from the request.
        csr_pem: nothing but its key is taken from it.
        enrolment: serial number of the certificate that the site enrolled with, from ``protocol.tls.peer_of``.
        now: the machine's clock when not given.

    Returns:
        The site's new chain, PEM: its certificate, then the issuer of renewals.

    Raises:
        IdentityError: the request is damaged, or the issuer has ended.
    """
    key = read_request(csr_pem)
    moment = now or datetime.now(UTC)
    pair = read_pair(issuer_folder)
    issuer = Issuer(pair.chain[0], pair.key)
    _require_current(issuer, moment, "the issuer of renewals", "run `fl-server ca refresh` where the root's key is")
    certificate = site_certificate(
        issuer, key, authority_consortium(issuer.certificate), peer_site, moment, RENEWAL_DAYS, enrolment
    )
    record(issuer_folder / ISSUED_FILE, certificate)
    return certificate.public_bytes(Encoding.PEM) + issuer.certificate.public_bytes(Encoding.PEM)


def revoke(
    folder: Path,
    passphrase: bytes,
    sites: Sequence[str] = (),
    serials: Sequence[str] = (),
    now: datetime | None = None,
) -> datetime:
    """Put certificates on the list of revoked ones, for good, and install the list beside the server's identity.

    Args:
        folder: the authority's.
        passphrase: of the root's key.
        sites: every certificate that a site has by now; their renewals, known here or not, are revoked with them.
        serials: hexadecimal, as `fl-server ca list` shows them.
        now: the machine's clock when not given.

    Returns:
        The moment by which the list must be made anew (``refresh``).

    Raises:
        IdentityError: nothing is named, a name or number is not on the authority's lists, or it is the server's.
    """
    moment = now or datetime.now(UTC)
    root = open_root(folder, passphrase, moment)
    issued = {int(line.serial, 16): line.site for line in listing(folder)}
    for site in sites:
        if site not in issued.values() or site in (COORDINATOR, RENEWAL_ISSUER):
            raise IdentityError(f"no certificate of a site {site!r} was issued here; see `fl-server ca list`.")
    wanted = {serial for serial, site in issued.items() if site in sites}
    for text in serials:
        serial = int(text, 16) if re.fullmatch(r"[0-9a-fA-F]{1,40}", text) else 0
        if serial not in issued:
            raise IdentityError(
                f"serial number {text[:40]!r} is not on the lists of this authority; see `fl-server ca list`."
            )
        if issued[serial] == COORDINATOR:
            raise IdentityError(
                f"serial number {text!r} is the server's, and sites do not read the list of revoked certificates. Run "
                "`fl-server ca refresh`, and see docs/security.md on a stolen server."
            )
        wanted.add(serial)
    if not wanted:
        raise IdentityError("nothing to revoke was named: give a site or a serial number.")
    return revoke_serials(folder, folder / SERVER, root, wanted, moment)


def listing(folder: Path) -> list[Issued]:
    """All certificates of the server and of sites, by either signing key, oldest first."""
    if not (folder / ROOT / CERTIFICATE_FILE).is_file() and not (folder / RENEWAL).is_dir():
        raise IdentityError(f"{folder}: no certificate authority here. Run `fl-server ca init`, or give its folder.")
    issued = [*read_issued(folder / ISSUED_FILE), *read_issued(folder / RENEWAL / ISSUED_FILE)]
    return sorted(issued, key=lambda line: line.not_before)


def revoked_serials(folder: Path) -> frozenset[int]:
    """Serial numbers on the authority's list of revoked certificates."""
    path, root = folder / REVOKED_FILE, folder / ROOT / CERTIFICATE_FILE
    if not path.exists():
        return frozenset()
    return read_revocations(path.read_bytes(), read_certificates(root.read_bytes(), str(root))[0], str(path)).serials


def _issue_online(folder: Path, root: Issuer, consortium: str, hosts: Sequence[str], now: datetime) -> None:
    """Make the two key pairs that the running server loads, each replaced whole."""
    if not hosts:
        raise IdentityError("no host was given; expected the names or addresses under which sites reach the server.")
    renewal_key, server_key = make_key(), make_key()
    renewal = renewal_certificate(root, renewal_key.public_key(), consortium, now, RENEWAL_DAYS)
    server = server_certificate(root, server_key.public_key(), consortium, hosts, now, LEAF_DAYS)
    _replace_pair(folder / RENEWAL, renewal_key, renewal.public_bytes(Encoding.PEM))
    record(folder / ISSUED_FILE, server)
    record(folder / ISSUED_FILE, renewal)
    private_folder(folder / SERVER)
    write_whole(folder / SERVER / ROOT_FILE, root.certificate.public_bytes(Encoding.PEM))
    write_whole(folder / SERVER / PIN_FILE, certificate_fingerprint(root.certificate) + "\n")
    _replace_pair(folder / SERVER, server_key, server.public_bytes(Encoding.PEM))


def _replace_pair(folder: Path, key: ec.EllipticCurvePrivateKey, chain_pem: bytes) -> None:
    private_folder(folder)
    settle(folder)
    write_whole(folder / NEXT_KEY_FILE, key_pem(key), mode=KEY_MODE)
    commit_pair(folder, chain_pem)


def open_root(folder: Path, passphrase: bytes, now: datetime) -> Issuer:
    """The consortium's root with its key.

    Raises:
        IdentityError: the key is not here, or the passphrase does not open it, or the root has ended.
    """
    if not (folder / ROOT / KEY_FILE).is_file():
        raise IdentityError(
            f"{folder / ROOT}: the root's key is not here. Run this where the key is kept, or `fl-server ca init` "
            "first."
        )
    path = folder / ROOT / CERTIFICATE_FILE
    certificate = read_certificates(path.read_bytes(), str(path))[0]
    root = Issuer(certificate, read_key(folder / ROOT / KEY_FILE, passphrase))
    if fingerprint(root.key.public_key()) != certificate_fingerprint(certificate):
        raise IdentityError(
            f"{folder / ROOT}: key and certificate do not belong together; restore both from one backup."
        )
    _require_current(root, now, "the consortium's root", "make a new authority; all sites must enrol again")
    return root


def _require_current(issuer: Issuer, now: datetime, what: str, remedy: str) -> None:
    begin, end = issuer.certificate.not_valid_before_utc, issuer.certificate.not_valid_after_utc
    if not begin <= now < end - MIN_LIFETIME:
        raise IdentityError(
            f"{what} serves from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, this machine's clock says "
            f"{now:%Y-%m-%d %H:%M}. If the clock is right, {remedy}."
        )
