"""Checks what a site states of its contribution, and countersigns it.

A statement is checked against all that the coordinator knows by itself: what it asked for, what was announced, whose
certificate speaks. What only the site can know (code, data, its statement before) is taken down as it was said.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from mammofed_server.mailbox import Upload
from mammofed_shared.clock import utc_now
from mammofed_shared.errors import IdentityError, ProtocolError, RefusalCode, Refused
from mammofed_shared.pki import Identity, check_chain, read_certificates
from mammofed_shared.pki.signature import (
    RECEIPT,
    STATEMENT,
    CertificateStore,
    Signer,
    as_pem,
    is_signed,
    signer_of,
)
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.protocol.statement import (
    ENCODING_FILTERS,
    FIRST_VERSION,
    Countersigned,
    Statement,
    metrics_digest,
    num_exams_of,
    statement_from_wire,
)

AuthContext = Mapping[str, Iterable[bytes]]


class Notary:
    """Takes statements in for one run; safe to use from every thread."""

    def __init__(self, folder: Path, consortium: str, identity: Callable[[], Identity]) -> None:
        """``folder`` keeps certificates; ``identity`` gives the coordinator's own, which may be replaced meanwhile."""
        self._store = CertificateStore(folder)
        self._consortium = consortium
        self._identity = identity
        self._writing = threading.Lock()
        self._store.keep_root(identity().root_pem)
        self._root = self._store.root()
        self.signer()

    def signer(self) -> Signer:
        """What signs for the coordinator now; its certificate is kept first."""
        identity = self._identity()
        self._keep(read_certificates(identity.chain_pem, "the server's certificate"))
        return signer_of(identity)

    def meet(self, site: str, protocol_version: int, auth_context: AuthContext) -> None:
        """A site has said which protocol it speaks: from the first version with statements on, it must make them.

        Its certificate is kept now: it may be renewed between signing and sending.
        """
        if protocol_version >= FIRST_VERSION:
            self._keep(self._chain_of(site, auth_context))

    def renewed(self, site: str, chain_pem: bytes) -> None:
        """A new certificate was given out."""
        if self._certificates_of(site):
            self._keep(read_certificates(chain_pem, "the renewal"))

    def confirm(self, plan: Plan, upload: Upload, wire: Any | None, auth_context: AuthContext) -> Countersigned | None:
        """The statement of an upload, checked and countersigned; None when the site makes none.

        Raises:
            Refused: STATEMENT; what is wrong stands in the coordinator's log.
        """
        if wire is None:
            if self._certificates_of(plan.site):
                raise Refused(
                    RefusalCode.STATEMENT, "this site signs its contributions; this one came without statement"
                )
            return None
        try:
            statement, signature = statement_from_wire(plan.task_id, wire)
            certificate = self._signed_by(plan.site, statement, signature, auth_context)
        except (ProtocolError, IdentityError) as error:
            raise Refused(RefusalCode.STATEMENT, str(error)) from error
        wrong = false_fields(statement, plan, upload)
        if wrong:
            raise Refused(RefusalCode.STATEMENT, f"the statement is false in {', '.join(wrong)}")
        signer = self.signer()
        return Countersigned(
            statement=statement,
            signature=signature,
            certificate=certificate,
            taken=utc_now(),
            receipt=signer.sign(RECEIPT, statement.digest.encode()),
            receipt_certificate=signer.certificate,
        )

    def chain_pem(self, certificate: str) -> bytes:
        """A certificate that is kept, with its issuer, as it goes to a site."""
        return as_pem(self._store.chain(certificate))

    def _signed_by(self, site: str, statement: Statement, signature: str, auth_context: AuthContext) -> str:
        """Digest of the site's certificate that signed: the call's, or one that the site renewed a moment ago."""
        chain = self._chain_of(site, auth_context)
        for candidate in (chain, *self._certificates_of(site)):
            if is_signed(candidate[0], STATEMENT, statement.text, signature):
                return self._keep(candidate)
        raise IdentityError("the statement is not signed by this site's key")

    def _chain_of(self, site: str, auth_context: AuthContext) -> tuple[x509.Certificate, ...]:
        """The caller's chain; a resumed connection leaves out the issuer, which is known from before then."""
        sent = [*auth_context.get("x509_pem_cert", ()), *auth_context.get("x509_pem_cert_chain", ())]
        chain = read_certificates(b"".join(sent), "the peer's certificate")
        known = next((item for item in self._certificates_of(site) if item[0] == chain[0]), None)
        return known or chain

    def _certificates_of(self, site: str) -> list[tuple[x509.Certificate, ...]]:
        """Chains of this site that are kept here and hold now."""
        return [chain for chain in self._store.chains() if self._holds(chain, site)]

    def _keep(self, chain: tuple[x509.Certificate, ...]) -> str:
        with self._writing:
            return self._store.keep(chain)

    def _holds(self, chain: tuple[x509.Certificate, ...], site: str) -> bool:
        try:
            check_chain(chain, self._root, self._consortium, site, datetime.now(UTC))
        except IdentityError:
            return False
        return True


def false_fields(statement: Statement, plan: Plan, upload: Upload) -> list[str]:
    """The fields of a statement that contradict what the coordinator knows."""
    said = statement.model_dump()
    known = {
        "task_id": plan.task_id,
        "configuration": plan.configuration,
        "num_exams": num_exams_of(upload.metrics),
        "state": plan.state.digest if plan.state is not None else None,
        "update": upload.payload.digest if upload.payload is not None else None,
        "metrics": metrics_digest(upload.metrics),
        "ledger_head": plan.ledger_head,
    }
    wrong = [name for name, value in known.items() if said[name] != value]
    expected = ENCODING_FILTERS.get(plan.upload) if plan.kind == "train" else None
    encodings = [item.kind for item in statement.filters if item.kind in ENCODING_FILTERS.values()]
    return wrong + ([] if encodings == ([expected] if expected else []) else ["filters"])
