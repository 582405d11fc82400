"""Do the signatures hold: the coordinator's under each line, the sites' under their statements, each up to the root?"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from pydantic import ValidationError

from mammofed_server.entries import CERTIFICATES, Key, key_of, line_of_state
from mammofed_shared.clock import moment_of
from mammofed_shared.errors import IdentityError
from mammofed_shared.ledger import Line, signed_words
from mammofed_shared.ledger_check import Finding
from mammofed_shared.pki import COORDINATOR, check_chain
from mammofed_shared.pki.signature import (
    LEDGER_LINE,
    RECEIPT,
    STATEMENT,
    CertificateStore,
    certificate_digest,
    is_signed,
)
from mammofed_shared.protocol.statement import Countersigned


@dataclass(frozen=True, slots=True)
class Said:
    """A contribution as a line of the ledger has it."""

    number: int
    """Of the line."""
    site: str
    task_id: str
    update: str | None
    before: str | None
    """Digest of the state that it started from, as it was sent."""
    starts_from: Key
    """The entry of that state."""
    signed: Countersigned | None
    num_exams: int | None = None
    """By which a visit counts; None of what is no visit."""


class Words:
    """Checks signatures with the certificates of a run, offline: what counts is the moment of signing."""

    def __init__(self, folder: Path, begun: dict[str, Any]) -> None:
        """``begun`` is the ledger's first entry."""
        self._store = CertificateStore(folder / CERTIFICATES)
        self._consortium = str(begun["consortium"])
        self.findings: list[Finding] = []
        self._told: set[str] = set()
        self._root = self._read_root(begun["root"])

    def _read_root(self, named: dict[str, str] | None) -> x509.Certificate | None:
        if named is None:
            return None
        try:
            root = self._store.root()
        except IdentityError as error:
            self._tell_certificate("root.pem", error)
            return None
        if certificate_digest(root) != named["certificate"]:
            self._tell_certificate("root.pem", IdentityError("it is not the root that the ledger names"))
            return None
        return root

    def check_store(self) -> None:
        """Look at every certificate that is kept, also one that nothing refers to."""
        for path in sorted(self._store.folder.glob("*.pem")):
            if path.name != "root.pem":
                try:
                    self._store.chain(path.stem)
                except IdentityError as error:
                    self._tell_certificate(path.name, error)

    def check_line(self, line: Line) -> bool:
        """Whether the coordinator has signed a line; tells when not."""
        if line.signature is None:
            self._tell(f"ledger.jsonl, line {line.number}", "field signature: the line is not signed; the first one is")
            return False
        said = signed_words(line.digest, line.signature.at)
        return self._holds(
            f"ledger.jsonl, line {line.number}",
            "field signature: not the coordinator's signature of this line at this time",
            (line.signature.by, COORDINATOR, line.signature.at),
            (LEDGER_LINE, said, line.signature.value),
        )

    def check_statement(self, said: Said, signed: Countersigned) -> None:
        """A site's signature under its statement, and the coordinator's under its receipt."""
        where = f"ledger.jsonl, line {said.number}, {said.site}"
        self._holds(
            where,
            "not this site's signature of its statement",
            (signed.certificate, said.site, signed.taken),
            (STATEMENT, signed.statement.text, signed.signature),
        )
        self._holds(
            where,
            "not the coordinator's signature of its receipt",
            (signed.receipt_certificate, COORDINATOR, signed.taken),
            (RECEIPT, signed.statement.digest.encode(), signed.receipt),
        )

    def _holds(self, where: str, what: str, who: tuple[str, str, str], signature: tuple[bytes, bytes, str]) -> bool:
        certificate, name, at = who
        try:
            moment = moment_of(at)
            chain = self._store.chain(certificate)
            if self._root is not None:
                check_chain(chain, self._root, self._consortium, name, moment)
        except IdentityError as error:
            signer = self._who_else_signed(certificate, signature)
            if signer is not None:
                self._tell(where, f"{what}: it names certificate {certificate}, and {signer} has signed")
            else:
                self._tell_certificate(f"{certificate}.pem", error)
            return False
        except ValueError:
            self._tell(where, f"{what}: the time is none")
            return False
        if not is_signed(chain[0], *signature):
            self._tell(where, what)
            return False
        return True

    def _who_else_signed(self, certificate: str, signature: tuple[bytes, bytes, str]) -> str | None:
        """The kept certificate that holds a signature whose own certificate is not here: then the name was changed."""
        if self._store.path(certificate).exists():
            return None
        leaves = (chain[0] for chain in self._store.chains())
        return next((certificate_digest(leaf) for leaf in leaves if is_signed(leaf, *signature)), None)

    def _tell(self, where: str, what: str) -> None:
        self.findings.append(Finding("tampered", where, what))

    def _tell_certificate(self, name: str, error: IdentityError) -> None:
        """Once for each certificate."""
        if name in self._told:
            return
        self._told.add(name)
        is_gone = not self._store.path(name.removesuffix(".pem")).exists()
        self.findings.append(Finding("incomplete" if is_gone else "tampered", f"{CERTIFICATES}/{name}", str(error)))


def contributions(lines: Iterable[Line]) -> Iterator[Said]:
    """Every contribution that the lines tell of: visits, evaluations, answers to the first question.

    An answer that stands in several lines, because a newcomer was asked later, comes once: with the first of them.
    """
    answers: set[str] = set()
    for line in lines:
        entry = line.entry
        kind, number = key_of(entry)
        if kind == "turn":
            for item in entry["contributions"]:
                yield Said(
                    line.number,
                    item["site"],
                    item["task_id"],
                    item["update"],
                    entry["delivered"] or entry["before"],
                    line_of_state(number - 1),
                    _countersigned(item["signed"]),
                    item["num_exams"],
                )
        elif kind in ("asked", "evaluated"):
            state = (entry["delivered"] or entry["state"]) if kind == "evaluated" else None
            starts_from = line_of_state(number) if kind == "evaluated" else line_of_state(0)
            for site, item in entry["signed"].items():
                signed = _countersigned(item)
                if kind == "asked" and signed is not None:
                    if signed.statement.digest in answers:
                        continue
                    answers.add(signed.statement.digest)
                task_id = signed.statement.task_id if signed is not None else ""
                yield Said(line.number, site, task_id, None, state, starts_from, signed)


def _countersigned(item: Any) -> Countersigned | None:
    try:
        return Countersigned.model_validate(item) if item is not None else None
    except ValidationError:  # of another version; its line's digest holds
        return None


def check_fields(said: Said, signed: Countersigned, configuration: str, heads: dict[Key, str]) -> list[Finding]:
    """What a statement says against what the ledger says."""
    statement = signed.statement
    known: dict[str, Any] = {
        "task_id": said.task_id,
        "configuration": configuration,
        "state": said.before,
        "update": said.update,
    }
    if said.num_exams is not None:
        known["num_exams"] = said.num_exams
    if said.starts_from in heads:  # else its line is broken, and told of
        known["ledger_head"] = heads[said.starts_from]
    told = statement.model_dump()
    wrong = [name for name, value in known.items() if told[name] != value]
    if statement.task_id.split("/")[3] != said.site:
        wrong.append("task_id")
    where = f"ledger.jsonl, line {said.number}, {said.site}"
    return [Finding("tampered", where, f"the statement says another {name} than the ledger") for name in wrong]
