"""Do a run's files and the sites' words name each other? So that a coordinator cannot lie with its own key.

A file that is as it was sealed, and a line that is signed, may still be of another update, or of other numbers, than
the site has signed. Here every file of a checkpoint is held against the digest that the ledger names, every line of a
turn against its manifest, and the numbers of every contribution against its site's statement.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

from mammofed_server.entries import entry_of, key_of
from mammofed_server.run_state import RunState
from mammofed_server.verified_words import Said
from mammofed_shared.checkpoint import MANIFEST_FILE, SEALS_FILE, STATE_FILE, UPDATES_FOLDER, Manifest, Seals
from mammofed_shared.ledger import Line
from mammofed_shared.ledger_check import Finding, differences
from mammofed_shared.protocol.statement import metrics_digest

Numbers = Mapping[str, float]


def check_links(run: RunState, lines: list[Line], said: list[Said], whole: Collection[str]) -> Iterator[Finding]:
    """What a ledger, its files and the statements in it say of each other, and should not.

    Args:
        run: the run.
        lines: the intact lines of its ledger.
        said: the contributions in them.
        whole: files that are as they were sealed; of others nothing is said here.
    """
    for line in lines:
        kind, turn = key_of(line.entry)
        folder = f"checkpoints/{0 if kind == 'begun' else turn:05d}"
        if kind in ("begun", "turn") and {f"{folder}/{MANIFEST_FILE}", f"{folder}/{SEALS_FILE}"} <= set(whole):
            manifest = run.manifest(0 if kind == "begun" else turn)
            yield from _lines_that_differ(run, line, manifest, folder)
            yield from _files_that_differ(run, manifest, folder)
    yield from _numbers_that_differ(run, lines, said, whole)


def _lines_that_differ(run: RunState, line: Line, manifest: Manifest, folder: str) -> Iterator[Finding]:
    if line.entry["kind"] == "begun":
        derived = {**line.entry, "state": manifest.state.digest}
    else:
        derived = entry_of(run, key_of(line.entry))
    names = line.entry.keys() - {"files"}  # an earlier version's line may have fewer fields
    for name in differences({name: line.entry[name] for name in names}, {name: derived.get(name) for name in names}):
        where = f"{folder}/{MANIFEST_FILE}"
        yield Finding("tampered", where, f"it says another {name} than the ledger, line {line.number}")


def _files_that_differ(run: RunState, manifest: Manifest, folder: str) -> Iterator[Finding]:
    path = run.checkpoint_folder(manifest.turn) / SEALS_FILE
    sealed = Seals.model_validate_json(path.read_bytes()).files
    named = {STATE_FILE: manifest.state.digest}
    named |= {name: reference.digest for name, reference in manifest.optimizer.items()}
    for item in manifest.contributions:
        named[f"{UPDATES_FOLDER}/{item.site}.safetensors"] = item.whole.digest
        if item.decoded is not None:
            named[f"{UPDATES_FOLDER}/{item.site}.sent.safetensors"] = item.update.digest
    for name, digest in named.items():
        if name in sealed and sealed[name].sha256 != digest:
            what = f"it is sealed, but it is not the file that the manifest names, {digest}"
            yield Finding("tampered", f"{folder}/{name}", what)
    if STATE_FILE not in sealed:
        yield Finding("tampered", f"{folder}/{SEALS_FILE}", "the state is not among what is sealed")


def _numbers_that_differ(
    run: RunState, lines: Iterable[Line], said: list[Said], whole: Collection[str]
) -> Iterator[Finding]:
    by_line = {line.number: line for line in lines}
    last_answer = {item.site: item.number for item in said if by_line[item.number].entry["kind"] == "asked"}
    for item in said:
        if item.signed is None:
            continue
        kind, turn = key_of(by_line[item.number].entry)
        name = {"turn": f"checkpoints/{turn:05d}/{MANIFEST_FILE}", "evaluated": f"evaluations/{turn:05d}.json"}.get(
            kind, "quality.json"
        )
        # Of a site that was asked twice the last answer alone is kept.
        if name not in whole or (kind == "asked" and item.number != last_answer[item.site]):
            continue
        numbers = _numbers(run, kind, turn).get(item.site)
        if numbers is None or metrics_digest(numbers) != item.signed.statement.metrics:
            yield Finding("tampered", name, f"not the numbers that {item.site} has signed")


def _numbers(run: RunState, kind: str, turn: int) -> Mapping[str, Numbers]:
    """Site → the numbers that left for an entry."""
    if kind == "turn":
        return {item.site: item.metrics for item in run.manifest(turn).contributions}
    record = run.evaluation(turn) if kind == "evaluated" else None
    if record is not None:
        return record.metrics
    asked = run.quality()
    return asked.counts if asked is not None else {}
