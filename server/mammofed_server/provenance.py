"""What goes with an exported model: the run's ledger and certificates, and who contributed to that state."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from mammofed_server.contributors import contributors_of
from mammofed_server.entries import CERTIFICATES, key_of
from mammofed_server.verified_words import contributions
from mammofed_shared.ledger import FILE, Line
from mammofed_shared.ledger_check import read_chain

PROVENANCE = "provenance"


def copy_provenance(run_folder: Path, output: Path) -> None:
    """Copy the ledger and its certificates to ``<output>/provenance/``; nothing, where the run keeps none."""
    if not (run_folder / FILE).exists():
        return
    folder = output / PROVENANCE
    folder.mkdir()
    shutil.copyfile(run_folder / FILE, folder / FILE)
    if (run_folder / CERTIFICATES).is_dir():
        shutil.copytree(run_folder / CERTIFICATES, folder / CERTIFICATES)


def contributors_text(run_folder: Path, turn: int) -> str:
    """The sites whose visits went into the state after a turn, as a section of a README; empty without a ledger."""
    lines = list(_until(read_chain(run_folder / FILE)[0], turn))
    if not lines:
        return ""
    rows = [
        f"| {item.site} | {item.num_visits} | {item.num_exams} | {item.num_signed} |"
        for item in contributors_of(lines, contributions(lines))
        if item.num_visits
    ]
    table = "\n".join(["| Site | Visits | Exams | Signed visits |", "|---|---|---|---|", *rows])
    return (
        f"\n## Contributors\n\n{table}\n\n"
        f"By {PROVENANCE}/{FILE}, which names state {lines[-1].entry['state']}. `fl-server verify` checks it in the "
        "run's folder.\n"
    )


def _until(lines: list[Line], turn: int) -> Iterator[Line]:
    """The lines up to that of a turn's state."""
    for line in lines:
        kind, number = key_of(line.entry)
        if kind == "turn" and number > turn:
            return
        if kind in ("begun", "turn"):
            yield line
