"""`fl-server verify`: does everything chain to the model that was released? Offline, without keys, torch or site.

Checked, in this order: the ledger's lines and the coordinator's signatures; every file that they seal; the sites'
statements up to the consortium's root; that lines, files and statements name each other; that each state follows from
the one before; means and encodings, where updates are kept; and a site's own ledger, where one is given.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from mammofed_server.attendance import check_quorum
from mammofed_server.contributors import Contributor, contributors_of
from mammofed_server.entries import Key, entry_of, key_of, missing
from mammofed_server.run_state import RunState
from mammofed_server.verified_encodings import check_encodings
from mammofed_server.verified_files import FilesFound, check_files
from mammofed_server.verified_links import check_links
from mammofed_server.verified_site import check_site_ledger
from mammofed_server.verified_states import ADOPTED, check_chain_of_states, is_kept, recompute
from mammofed_server.verified_words import Said, Words, check_fields, contributions
from mammofed_shared.errors import IdentityError, MammofedError, StateError
from mammofed_shared.ledger import FILE, Line, line_digest
from mammofed_shared.ledger_check import Derive, Finding, Neighbours, differences, read_chain
from mammofed_shared.pki import normal_fingerprint

Verdict = Literal["whole", "incomplete", "tampered"]


@dataclass(slots=True)
class Report:
    """What was checked, and what was found."""

    run: str = ""
    turn: int = 0
    """Of the released model: the last one in the ledger."""
    state: str = ""
    """Its digest."""
    ending: str = ""
    """`finished`, `cancelled`, or empty while the run can go on."""
    root: str = ""
    """Fingerprint of the consortium's root that the signatures lead to; empty: nothing is signed."""
    num_lines: int = 0
    num_signed_lines: int = 0
    num_files: int = 0
    """Files that are as they were sealed."""
    num_states_gone: int = 0
    """States and updates that are not here any more; their digests are."""
    num_statements: int = 0
    num_unsigned: int = 0
    """Contributions without a site's statement."""
    num_folded: int = 0
    """Turns whose state is made of the updates of sites that trained at once."""
    num_means: int = 0
    """Of them, those whose state was computed again."""
    num_sent: int = 0
    """Updates that came encoded."""
    num_decoded: int = 0
    """Of them, those that were decoded again."""
    num_encoded: int = 0
    """States whose encoded form, as sites received it, was made again."""
    contributors: list[Contributor] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The worst that was found."""
        found = {item.severity for item in self.findings}
        return "tampered" if "tampered" in found else "incomplete" if "incomplete" in found else "whole"

    def json(self) -> str:
        """The report for machines."""
        adapter: TypeAdapter[Report] = TypeAdapter(Report)
        return TypeAdapter(dict[str, Any]).dump_json(
            {"verdict": self.verdict, **adapter.dump_python(self, mode="json")}, indent=1
        ).decode()  # fmt: skip


def verify_run(
    folder: Path, root_fingerprint: str | None = None, site_ledgers: Sequence[Path] = (), work: Path | None = None
) -> Report:
    """Check a run's folder.

    Args:
        folder: the run's.
        root_fingerprint: of the consortium's root, as it was told by another channel; without it the root is taken from
            the folder, and only a person can say whether it is the right one.
        site_ledgers: ``ledger.jsonl`` of sites.
        work: where states are computed again; the system's temporary folder when not given.

    Raises:
        StateError: there is no run here.
    """
    if not (folder / FILE).exists() and not RunState.exists(folder):
        raise StateError(f"{folder}: no run has begun here; name the folder that is `server.folder` in the run's YAML")
    report = Report()
    run = _opened(folder)
    lines, findings = read_chain(folder / FILE, _derivation(run) if run is not None else _no_derivation)
    report.findings += findings
    report.num_lines = len(lines)
    if not lines or key_of_or_none(lines[0]) != ("begun", 0):
        report.findings.append(
            Finding("incomplete", FILE, "the ledger's first line, on which all else rests, is missing")
        )
        return report
    try:
        _check_entries(report, folder, run, lines, root_fingerprint, site_ledgers, work, is_whole=not findings)
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # such as somebody writes who has no key
        what = f"a line is not of a form that this software writes: {type(error).__name__} {error}"
        report.findings.append(Finding("tampered", FILE, what))
    return report


def _check_entries(
    report: Report,
    folder: Path,
    run: RunState | None,
    lines: list[Line],
    root_fingerprint: str | None,
    site_ledgers: Sequence[Path],
    work: Path | None,
    *,
    is_whole: bool,
) -> None:
    known = [line for line in lines if key_of_or_none(line) is not None]
    _note_head(report, known)
    said = list(contributions(known))
    _check_words(folder, report, known, said, root_fingerprint)
    files = check_files(folder, known, report.turn)
    report.findings += files.findings
    report.num_files, report.num_states_gone = len(files.whole), len(files.states_gone)
    report.findings += check_chain_of_states(known)
    if run is not None:
        report.findings += _what_has_no_line(run, known, is_whole=is_whole)
        report.findings += _fields_that_differ(run, known, files)
        report.findings += check_links(run, known, said, files.whole)
        report.findings += _rounds_without_quorum(report, run)
        report.findings += _means(run, report, known, files, work)
        encodings = check_encodings(run, known, files.whole, work)
        report.findings += encodings.findings
        report.num_sent, report.num_decoded = encodings.num_sent, encodings.num_decoded
        report.num_encoded = encodings.num_encoded
    report.contributors = contributors_of(known, said)
    for path in site_ledgers:
        report.findings += check_site_ledger(path, report.run, known, said)


def key_of_or_none(line: Line) -> Key | None:
    """Which entry a line is; None of a kind that this version does not know."""
    try:
        return key_of(line.entry)
    except (KeyError, ValueError, TypeError):
        return None


def _opened(folder: Path) -> RunState | None:
    try:
        return RunState.open(folder)
    except StateError:  # run.json is damaged: its seal will say where
        return None


def _no_derivation(around: Neighbours) -> None:
    """Without its settings nothing of a run can be derived."""


def _derivation(run: RunState) -> Derive:
    """Derives the entry of a broken line from the run's files, when they give the digest that the next line names."""

    def derive(around: Neighbours) -> dict[str, Any] | None:
        for key in _candidates(run, around):
            entry = _entry_or_none(run, key)
            if entry is None:
                continue
            if around.digest is None or line_digest(around.number, around.previous, entry) == around.digest:
                return entry
        return None

    return derive


def _candidates(run: RunState, around: Neighbours) -> list[Key]:
    try:
        return [key_of(around.entry)] if around.entry is not None else list(missing(run, ()))
    except (KeyError, ValueError, TypeError, MammofedError, OSError):
        return []


def _entry_or_none(run: RunState, key: Key) -> dict[str, Any] | None:
    try:
        return entry_of(run, key)
    except (MammofedError, OSError, ValueError, KeyError, AssertionError):
        return None


def _note_head(report: Report, lines: list[Line]) -> None:
    begun = lines[0].entry
    report.run, report.state = begun["run"], begun["state"]
    for line in lines:
        kind, turn = key_of(line.entry)
        if kind == "turn":
            report.turn, report.state = turn, line.entry["state"]
        elif kind == "ended":
            report.ending = line.entry["ending"]


def _check_words(folder: Path, report: Report, lines: list[Line], said: list[Said], fingerprint: str | None) -> None:
    begun = lines[0].entry
    words = Words(folder, begun)
    report.num_signed_lines = sum(line.signature is not None for line in lines)
    if report.num_signed_lines or begun["root"] is not None:
        report.root = begun["root"]["fingerprint"] if begun["root"] is not None else ""
        for line in lines:
            words.check_line(line)
        words.check_store()
    report.findings += _root_findings(report.root, fingerprint)
    heads = {key_of(line.entry): line.digest for line in lines}
    for item in said:
        if item.signed is None:
            report.num_unsigned += 1
            continue
        report.num_statements += 1
        words.check_statement(item, item.signed)
        report.findings += check_fields(item, item.signed, begun["configuration"], heads)
    report.findings += words.findings
    report.findings += _gaps(said)


def _root_findings(root: str, fingerprint: str | None) -> Iterator[Finding]:
    if fingerprint is None:
        return
    try:
        wanted = normal_fingerprint(fingerprint)
    except IdentityError as error:
        raise StateError(str(error)) from error
    if not root:
        yield Finding("tampered", FILE, f"nothing is signed, and signatures up to the root {wanted} were asked for")
    elif root != wanted:
        yield Finding("tampered", FILE, f"the signatures lead to the root {root}, asked for was {wanted}")


def _gaps(said: list[Said]) -> Iterator[Finding]:
    """Statements of a site that are not in the ledger, as its next statement tells."""
    last: dict[str, str] = {}
    for item in said:
        if item.signed is None:
            continue
        statement = item.signed.statement
        if item.site in last and statement.previous != last[item.site]:
            where = f"ledger.jsonl, line {item.number}, {item.site}"
            what = "the site made a statement before this one that is not here: refused, lost, or of another run"
            yield Finding("note", where, f"{what}; its own ledger tells (--site-ledger)")
        last[item.site] = statement.digest


def _what_has_no_line(run: RunState, lines: list[Line], *, is_whole: bool) -> Iterator[Finding]:
    """What is committed and stands in no line; of a ledger with broken lines that cannot be said."""
    if not is_whole:
        return
    try:
        keys = list(missing(run, {key_of(line.entry) for line in lines}))
    except (MammofedError, OSError, ValueError):  # a damaged file, told of by its seal
        return
    for kind, number in keys:
        yield Finding(
            "incomplete",
            FILE,
            f"no line tells of what is committed: {kind} {number}; the next start of `fl-server` writes it, unless "
            "lines were taken away",
        )


def _rounds_without_quorum(report: Report, run: RunState) -> Iterator[Finding]:
    """A run that is called finished, though a round has fewer sites than its settings ask for."""
    if report.ending != "finished":
        return
    try:
        check_quorum(run.record.settings, run.schedule().turns, run)
    except StateError as error:
        yield Finding("tampered", FILE, str(error))
    except (MammofedError, OSError, ValueError):  # a damaged file, told of by its seal
        return


def _fields_that_differ(run: RunState, lines: list[Line], files: FilesFound) -> Iterator[Finding]:
    """Of files in which more than a byte was changed: the fields that the ledger tells otherwise."""
    damaged = {item.where for item in files.findings if item.severity == "tampered"}
    for line in lines:
        names: Collection[str] = line.entry.get("files", {})
        if damaged.isdisjoint(names):
            continue
        derived = _entry_or_none(run, key_of(line.entry))
        for name in differences({**line.entry, "files": {}}, {**derived, "files": {}}) if derived is not None else ():
            where = ", ".join(sorted(damaged & set(names)))
            yield Finding("tampered", where, f"it says another {name} than the ledger, line {line.number}")


def _means(run: RunState, report: Report, lines: list[Line], files: FilesFound, work: Path | None) -> Iterator[Finding]:
    for line in lines:
        kind, turn = key_of(line.entry)
        if kind != "turn" or line.entry["strategy"] == ADOPTED or not line.entry["contributions"]:
            continue
        report.num_folded += 1
        if f"checkpoints/{turn:05d}/manifest.json" not in files.whole:
            continue
        manifest = run.manifest(turn)
        if is_kept(run, manifest):
            report.num_means += 1
            finding = recompute(run, manifest, work)
            if finding is not None:
                yield finding
