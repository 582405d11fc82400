"""The site's own ledger, ``<site folder>/ledger.jsonl``: each statement before it is sent, each receipt that came.

    stated     the statement, its signature, the numbers that left with it, and the head of the audit record
    received   the coordinator's receipt for a statement, checked

A statement is made once for a visit: after a kill the one that stands here is sent again. Certificates are kept in
``certificates/`` beside it, so that both hold after a renewal.
"""

import base64
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mammofed_shared.clock import utc_now
from mammofed_shared.errors import IdentityError
from mammofed_shared.ledger import FILE, Ledger
from mammofed_shared.pki import COORDINATOR, Identity, check_chain, read_certificates
from mammofed_shared.pki.signature import (
    RECEIPT,
    STATEMENT,
    CertificateStore,
    is_signed,
    signer_of,
)
from mammofed_shared.protocol.plan import Plan, Update
from mammofed_shared.protocol.statement import (
    ENCODING_FILTERS,
    Filter,
    Signed,
    Statement,
    metrics_digest,
    num_exams_of,
)
from mammofed_shared.revision import source_digest
from mammofed_site.audit import Audit

logger = logging.getLogger(__name__)

CERTIFICATES = "certificates"
STATED, RECEIVED = "stated", "received"


class SiteLedger:
    """States this site's contributions. The parent of `site-client` alone has it, and with it the key."""

    def __init__(self, folder: Path, identity: Callable[[], Identity]) -> None:
        """Open the ledger in a site's folder; ``identity`` gives the present one, which may be renewed meanwhile.

        Raises:
            StateError: a line is not what was written.
        """
        self._audit = Audit(folder)
        self._store = CertificateStore(folder / CERTIFICATES)
        self._identity = identity
        self._ledger = Ledger(folder / FILE)
        self._stated: dict[str, Signed] = {}
        self._last: str | None = None
        self._received: set[str] = set()
        for line in self._ledger.lines:
            self._note(line.entry)

    def _note(self, entry: dict[str, Any]) -> None:
        if entry["kind"] == STATED:
            signed = Signed.model_validate(entry["signed"])
            self._stated[signed.statement.task_id] = signed
            self._last = signed.statement.digest
        else:
            self._received.add(entry["statement"])

    def state(self, plan: Plan, update: Update, data: str) -> Signed:
        """The statement on a contribution that is about to leave; the same one when it is about to leave again.

        Args:
            plan: what was asked.
            update: what ``release`` let out.
            data: digest of the prepared tables that the visit used.
        """
        before = self._stated.get(plan.task_id)
        if before is not None:
            again = _statement(plan, update, data, before.statement.previous)
            if again == before.statement:  # else of another run of this name, of other data, or trained anew
                is_mine = before.certificate == signer_of(self._identity()).certificate
                return before if is_mine else self._sign(again, update)  # renewed since: the new key speaks now
        return self._sign(_statement(plan, update, data, self._last), update)

    def _sign(self, statement: Statement, update: Update) -> Signed:
        identity = self._identity()
        signer = signer_of(identity)
        self._store.keep(read_certificates(identity.chain_pem, "the site's certificate"))
        signed = Signed(
            statement=statement,
            signature=signer.sign(STATEMENT, statement.text),
            certificate=signer.certificate,
        )
        self._append(
            {
                "kind": STATED,
                "at": utc_now(),
                "signed": signed.model_dump(mode="json"),
                "metrics": {name: float(value) for name, value in update.metrics.items()},
                "audit": self._audit.head(),
            }
        )
        return signed

    def keep_receipt(self, signed: Signed, receipt: bytes, chain_pem: bytes) -> None:
        """Keep the coordinator's receipt. One that is missing or false changes nothing, but is written down."""
        digest = signed.statement.digest
        if digest in self._received:
            return
        try:
            chain = read_certificates(chain_pem, "the coordinator's certificate")
            root = read_certificates(self._identity().root_pem, "root.pem")[0]
            check_chain(chain, root, self._identity().consortium, COORDINATOR, datetime.now(UTC))
            signature = base64.b64encode(receipt).decode("ascii")
            if not is_signed(chain[0], RECEIPT, digest.encode(), signature):
                raise IdentityError("the receipt is not signed by the coordinator's key")
        except IdentityError as error:
            logger.error("task %s: no valid receipt for this contribution: %s", signed.statement.task_id, error)
            self._audit.write("no_receipt", task=signed.statement.task_id)
            return
        self._append(
            {
                "kind": RECEIVED,
                "at": utc_now(),
                "statement": digest,
                "receipt": signature,
                "certificate": self._store.keep(chain),
            }
        )

    def _append(self, entry: dict[str, Any]) -> None:
        self._ledger.append(entry)
        self._note(entry)


def _statement(plan: Plan, update: Update, data: str, previous: str | None) -> Statement:
    encoding = ENCODING_FILTERS.get(plan.upload) if plan.kind == "train" else None
    encoded = () if encoding is None else (Filter(kind=encoding),)
    return Statement(
        task_id=plan.task_id,
        previous=previous,
        configuration=plan.configuration,
        code=source_digest(),
        data=data,
        num_exams=num_exams_of(update.metrics),
        state=plan.state.digest if plan.state is not None else None,
        update=update.payload.digest if update.payload is not None else None,
        metrics=metrics_digest(update.metrics),
        filters=(*update.filters, *encoded),
        ledger_head=plan.ledger_head,
    )
