"""Whom the running coordinator trusts at this moment: its own identity, and the list of revoked certificates.

Both are files that the lead may replace at any time (`fl-server ca refresh`, `fl-server ca revoke`); nobody restarts
anything. A look at a file's date costs some microseconds, so every handshake and every call takes one.
"""

import logging
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from mammofed_shared.errors import IdentityError
from mammofed_shared.files import write_whole
from mammofed_shared.pki import (
    CERTIFICATE_FILE,
    COORDINATOR,
    REVOKED_FILE,
    Identity,
    Reminder,
    RevocationList,
    load_identity,
    read_certificates,
    read_revocations,
)
from mammofed_shared.protocol.tls import Peer

logger = logging.getLogger(__name__)

NUMBER_FILE = "revoked.number"
"""Number of the newest list that was in force, kept with the issuer of renewals: a list that vanished or went back to
an older one must not let anybody in again."""
READ_AGAIN_AFTER_S = 60.0
"""A file whose date tells nothing (a network file system's cache) is read again after this long."""
REFRESH = "run `fl-server ca refresh` where the consortium's root key is; nothing needs a restart"

Stamp = tuple[int, int, int] | None


class Revoked(IdentityError):
    """The peer's certificate is on the list of revoked ones."""


class Trust:
    """What the coordinator's identity folder says now; safe to use from every thread."""

    def __init__(self, identity: Identity, folder: Path, renewal_folder: Path) -> None:
        """Read everything once.

        Args:
            identity: of the coordinator, loaded from ``folder``.
            folder: the setting ``server.identity``.
            renewal_folder: of the issuer of renewals.

        Raises:
            IdentityError: the list of revoked certificates cannot be relied on.
        """
        self._identity = identity
        self._folder = folder
        self._renewal_folder = renewal_folder
        self._root = x509.load_pem_x509_certificate(identity.root_pem)
        self._lock = threading.Lock()
        self._identity_stamp = _stamp(folder / CERTIFICATE_FILE)
        self._list: RevocationList | None = None
        self._problem = ""
        self._list_stamp: Stamp = None
        self._read_at_s = -READ_AGAIN_AFTER_S
        self._reminder = Reminder(logger)
        self.require_list()

    @property
    def identity(self) -> Identity:
        """The identity that serves now."""
        return self._identity

    # ── revoked certificates ────────────────────────────────────────────────────────────────────────────────

    def require_list(self, now: datetime | None = None) -> RevocationList | None:
        """The list in force; None when none was ever installed.

        Raises:
            IdentityError: it is missing although one was in force, damaged, not the root's, older than one that was in
                force, or past its date. Nobody can be let in then: somebody who was shut out could be among them.
        """
        with self._lock:
            self._look_at_list()
            found, problem = self._list, self._problem
        if problem:
            raise IdentityError(problem)
        moment = now or datetime.now(UTC)
        if found is not None and moment >= found.next_update:
            raise IdentityError(
                f"{self._folder / REVOKED_FILE}: the list of revoked certificates held until "
                f"{found.next_update:%Y-%m-%d %H:%M} UTC; no site is let in. To mend it, {REFRESH}."
            )
        return found

    def check(self, peer: Peer, now: datetime | None = None) -> None:
        """Let a peer pass that is not revoked.

        Raises:
            Revoked: it is.
            IdentityError: the list cannot be relied on.
        """
        found = self.require_list(now)
        if found is not None and not peer.serials.isdisjoint(found.serials):
            raise Revoked(
                f"revoked: the certificate of site {peer.site} was revoked by the consortium's lead. Ask the lead; if "
                "it was a mistake, or the key is safe again, enrol with a new key."
            )

    def _look_at_list(self) -> None:
        stamp = _stamp(self._folder / REVOKED_FILE)
        now_s = time.monotonic()
        if stamp == self._list_stamp and now_s - self._read_at_s < READ_AGAIN_AFTER_S:
            return
        self._list_stamp, self._read_at_s = stamp, now_s
        before = self._list.number if self._list is not None else 0
        try:
            self._list, self._problem = self._read_list(), ""
        except IdentityError as error:
            if str(error) != self._problem:
                logger.error("no site is let in: %s", error)
            self._problem = str(error)
            return
        if self._list is not None and self._list.number != before:
            logger.info("list of revoked certificates, number %d: %d", self._list.number, len(self._list.serials))

    def _read_list(self) -> RevocationList | None:
        path, memory = self._folder / REVOKED_FILE, self._renewal_folder / NUMBER_FILE
        remembered = _read_number(memory)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            if remembered:
                raise IdentityError(
                    f"{path}: the list of revoked certificates is missing; number {remembered} was in force. Copy "
                    "revoked.pem here from the folder of the authority."
                ) from None
            return None
        except OSError as error:
            raise IdentityError(
                f"{path}: the list of revoked certificates cannot be read: {error.strerror}."
            ) from error
        found = read_revocations(raw, self._root, str(path))
        if found.number < remembered:
            raise IdentityError(
                f"{path}: this is list number {found.number} of revoked certificates, but number {remembered} was in "
                "force. Copy the newest revoked.pem here from the folder of the authority."
            )
        if found.number > remembered:
            write_whole(memory, f"{found.number}\n")
        return found

    # ── the coordinator's own identity ──────────────────────────────────────────────────────────────────────

    def newer_identity(self) -> Identity | None:
        """The identity in the folder, when it was replaced since this was last asked and can serve; None otherwise."""
        with self._lock:
            stamp = _stamp(self._folder / CERTIFICATE_FILE)
            if stamp == self._identity_stamp:
                return None
            self._identity_stamp = stamp
            try:
                found = load_identity(self._folder, self._identity.consortium, COORDINATOR)
                if found.root_pem != self._identity.root_pem:
                    raise IdentityError("it is of another root; a new root needs a restart, and all sites must enrol")
            except (IdentityError, OSError) as error:
                logger.error("the coordinator's new certificate cannot serve, the one before it goes on: %s", error)
                return None
            self._identity = found
        logger.info("the coordinator's new certificate serves from now on, until %s", found.not_after)
        return found

    def remind(self, now: datetime | None = None) -> None:
        """Warn once a day of what ends within 30 days: the server's certificate, the issuer of renewals, the list."""
        remedy = REFRESH
        self._reminder.remind("the coordinator's certificate", self._identity.not_after, remedy, now)
        try:
            path = self._renewal_folder / CERTIFICATE_FILE
            issuer = read_certificates(path.read_bytes(), str(path))[0]
            self._reminder.remind("the issuer of renewals", issuer.not_valid_after_utc, remedy, now)
        except (IdentityError, OSError):
            pass  # a renewal says so where it fails
        with self._lock:
            found = self._list
        if found is not None:
            self._reminder.remind("the list of revoked certificates", found.next_update, remedy, now)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read_number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        raise IdentityError(
            f"{path}: not the number of the list of revoked certificates that was in force. Write the number that "
            "`openssl crl -in revoked.pem -noout -crlnumber` shows, in decimal digits."
        ) from error
