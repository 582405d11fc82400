"""`site-client ledger`: what this site contributed, and whether its ledger and audit record are as written."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from rich.console import Console
from rich.table import Table

from mammofed_shared.clock import moment_of
from mammofed_shared.commands import ExitCode
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import IdentityError
from mammofed_shared.ledger import FILE, Line, raw_lines
from mammofed_shared.ledger_check import Finding, read_chain
from mammofed_shared.pki import COORDINATOR, ROOT_FILE, check_chain, read_certificates
from mammofed_shared.pki.signature import RECEIPT, STATEMENT, CertificateStore, is_signed
from mammofed_shared.protocol.statement import Signed
from mammofed_site.audit import AUDIT_FILE
from mammofed_site.ledger import CERTIFICATES, RECEIVED, STATED


@dataclass(slots=True)
class Contributed:
    """One statement of this site."""

    at: str
    signed: Signed
    has_receipt: bool = False


@dataclass(slots=True)
class SiteReport:
    """What was found at a site."""

    contributed: list[Contributed] = field(default_factory=list)
    num_audit_lines: int = 0
    findings: list[Finding] = field(default_factory=list)


def check_site(settings: SiteSettings) -> SiteReport:
    """Check this site's ledger, its signatures and receipts, and its audit record."""
    report = SiteReport()
    path = settings.folder / FILE
    if not path.exists():
        report.findings.append(Finding("incomplete", FILE, "there is none: this site has not contributed yet"))
        return report
    lines, findings = read_chain(path)
    report.findings += findings
    checker = _Signatures(settings)
    by_digest: dict[str, Contributed] = {}
    for line in lines:
        if line.entry.get("kind") == STATED:
            item = Contributed(line.entry["at"], Signed.model_validate(line.entry["signed"]))
            by_digest[item.signed.statement.digest] = item
            report.findings += checker.statement(line, item.signed)
        elif line.entry.get("kind") == RECEIVED:
            report.findings += checker.receipt(line)
            if line.entry["statement"] in by_digest:
                by_digest[line.entry["statement"]].has_receipt = True
    report.contributed = list(by_digest.values())
    report.findings += _audit_findings(settings.folder / AUDIT_FILE, lines, report)
    return report


class _Signatures:
    """This site's and the coordinator's, by certificates that are kept beside the ledger, up to the pinned root."""

    def __init__(self, settings: SiteSettings) -> None:
        self._settings = settings
        self._store = CertificateStore(settings.folder / CERTIFICATES)
        root = settings.identity / ROOT_FILE
        self._root: x509.Certificate = read_certificates(_bytes_of(root), str(root))[0]

    def statement(self, line: Line, signed: Signed) -> Iterator[Finding]:
        who = signed.certificate, self._settings.site, line.entry["at"]
        yield from self._check(line, who, (STATEMENT, signed.statement.text, signed.signature))

    def receipt(self, line: Line) -> Iterator[Finding]:
        entry = line.entry
        who = entry["certificate"], COORDINATOR, entry["at"]
        yield from self._check(line, who, (RECEIPT, entry["statement"].encode(), entry["receipt"]))

    def _check(self, line: Line, who: tuple[str, str, str], signature: tuple[bytes, bytes, str]) -> Iterator[Finding]:
        certificate, name, at = who
        try:
            chain = self._store.chain(certificate)
            check_chain(chain, self._root, self._settings.consortium, name, moment_of(at))
        except (IdentityError, ValueError) as error:
            yield Finding("tampered", f"{CERTIFICATES}/{certificate}.pem", str(error))
            return
        if not is_signed(chain[0], *signature):
            yield Finding("tampered", f"{FILE}, line {line.number}", f"the signature is not that of {name}")


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise IdentityError(f"{path}: the consortium's root is not here; `site-client enrol` brings it") from error


def _audit_findings(path: Path, lines: list[Line], report: SiteReport) -> Iterator[Finding]:
    """Each line of the audit record has the digest of the one before, and the ledger has some of them."""
    digests: list[str] = []
    is_chained = False
    for number, raw in raw_lines(path):
        where = f"{path.name}, line {number}"
        said = _previous(raw)
        if said is not None and (not digests or said != digests[-1]):
            yield Finding("tampered", where, "field previous: the line before is not the one that was there")
        if said is None and is_chained:
            yield Finding("tampered", where, "it cannot be read, or does not name the line before")
        is_chained = is_chained or said is not None
        digests.append(hashlib.sha256(raw).hexdigest())
    report.num_audit_lines = len(digests)
    known = {None, *digests}
    for line in lines:
        if line.entry.get("kind") == STATED and line.entry["audit"] not in known:
            yield Finding(
                "tampered",
                path.name,
                f"the line that stood last when line {line.number} of the ledger was made is gone",
            )


def _previous(raw: bytes) -> str | None:
    try:
        line: Any = json.loads(raw)
    except ValueError:
        return None
    found = line.get("previous") if isinstance(line, dict) else None
    return found if isinstance(found, str) else None


def print_site(report: SiteReport, console: Console) -> ExitCode:
    """Print what was contributed and what was found; gives the exit code."""
    table = Table("sent", "task", "exams", "state", "update", "filters", "receipt")
    for item in report.contributed:
        said = item.signed.statement
        table.add_row(
            item.at,
            said.task_id,
            str(said.num_exams),
            (said.state or "")[:8],
            (said.update or "")[:8],
            ", ".join(filter_.kind for filter_ in said.filters),
            "yes" if item.has_receipt else "no",
        )
    console.print(table)
    for finding in report.findings:
        console.print(f"{finding.severity}: {finding.where}: {finding.what}", soft_wrap=True, markup=False)
    found = {finding.severity for finding in report.findings}
    if "tampered" in found:
        console.print("TAMPERED: something is not what was written")
        return ExitCode.TAMPERED
    if "incomplete" in found:
        console.print("INCOMPLETE: something is missing")
        return ExitCode.INCOMPLETE
    console.print(f"WHOLE: {len(report.contributed)} contributions, {report.num_audit_lines} lines of the audit record")
    return ExitCode.OK
