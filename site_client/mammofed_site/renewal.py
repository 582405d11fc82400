"""Keeps a running site's certificate fresh: asks in time, also in the middle of a visit, and warns where it fails.

The key is made here, the coordinator signs for the site that the present certificate proves, and the link goes on with
the new one. Nothing that is under way stops for it.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import IdentityError
from mammofed_shared.pki import Identity, Reminder
from mammofed_site.audit import Audit
from mammofed_site.enrol import install_renewal, renewal_due, renewal_request
from mammofed_site.link import Link

logger = logging.getLogger(__name__)

LONGEST_WAIT_S = 24 * 3600.0
SHORTEST_WAIT_S = 60.0


class Renewal:
    """The certificate of one running site; safe to use from the visit's thread and from the heartbeat's."""

    def __init__(
        self,
        settings: SiteSettings,
        identity: Identity,
        link: Link,
        audit: Audit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._link = link
        self._audit = audit
        self._clock = clock
        self._lock = threading.Lock()
        self._not_before_s = -LONGEST_WAIT_S
        self._reminder = Reminder(logger)

    @property
    def identity(self) -> Identity:
        """The identity that serves now."""
        return self._identity

    def if_due(self) -> None:
        """Renew the certificate when less than a third of its life is left; what fails is tried again in time.

        Never raises: the present certificate still serves.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._clock() >= self._not_before_s and renewal_due(self._identity):
                self._try()
            self._remind()
        except Exception:
            self._not_before_s = self._clock() + SHORTEST_WAIT_S
            logger.exception("the certificate, valid until %s, was not renewed", self._identity.not_after)
        finally:
            self._lock.release()

    def _try(self) -> None:
        left_s = (self._identity.not_after - datetime.now(UTC)).total_seconds()
        self._not_before_s = self._clock() + min(LONGEST_WAIT_S, max(SHORTEST_WAIT_S, left_s / 10))
        folder, site, consortium = self._settings.identity, self._settings.site, self._settings.consortium
        try:
            chain = self._link.ask_renewal(renewal_request(folder))
            if chain is None:
                return
            self._identity = install_renewal(folder, chain, site, consortium)
        except IdentityError as error:
            logger.warning("the certificate, valid until %s, was not renewed: %s", self._identity.not_after, error)
            return
        self._link.renew(self._identity)
        self._not_before_s = -LONGEST_WAIT_S
        logger.info("the certificate was renewed; it is valid until %s", self._identity.not_after)
        self._audit.write("renewed", not_after=self._identity.not_after.isoformat())

    def _remind(self) -> None:
        self._reminder.remind(
            "this site's certificate",
            self._identity.not_after,
            "site-client renews it by itself while it runs and reaches the coordinator. If this is said for days, ask "
            f"the lead for `fl-server ca refresh`, or enrol again: `site-client enrol --site {self._settings.site}`",
        )
