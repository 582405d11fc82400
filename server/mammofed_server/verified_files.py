"""Are the files of a run what the ledger says, and if not, where not?"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mammofed_shared.checkpoint import SEALS_FILE, Seals
from mammofed_shared.errors import PayloadError
from mammofed_shared.json_place import field_at, line_at
from mammofed_shared.ledger import FILE, Line
from mammofed_shared.ledger_check import Finding
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.seal import Damage, Seal, find_damage

_MOST_PLACES = 5
"""Places that are told of one file; of more, their number."""


@dataclass(slots=True)
class FilesFound:
    """What was looked at."""

    findings: list[Finding] = field(default_factory=list)
    whole: set[str] = field(default_factory=set)
    """Files that are as they were sealed."""
    states_gone: list[str] = field(default_factory=list)
    """States and retained updates that are not here any more."""


def check_files(folder: Path, lines: Iterable[Line], released: int) -> FilesFound:
    """Compare every file that the ledger seals, and every file that a checkpoint's seals name, with its seal.

    Args:
        folder: the run's.
        lines: the intact lines of its ledger.
        released: turn of the model in question; its state must be here, earlier ones may have been removed.
    """
    found = FilesFound()
    for name, seal in newest_seals(lines).items():
        _check_one(folder, name, seal, found)
        if name.endswith(f"/{SEALS_FILE}") and name in found.whole:
            for inner, inner_seal in _inner_seals(folder / name):
                path = f"{name.removesuffix(SEALS_FILE)}{inner}"
                is_needed = Path(path).parent == Path(f"checkpoints/{released:05d}")
                if (folder / path).exists() or is_needed:
                    _check_one(folder, path, inner_seal, found)
                else:
                    found.states_gone.append(path)
    return found


def newest_seals(lines: Iterable[Line]) -> dict[str, Seal]:
    """The seal of each file by the last line that names it."""
    seals: dict[str, Any] = {}
    for line in lines:
        seals |= line.entry.get("files", {})
    return {name: Seal.model_validate(seal) for name, seal in seals.items()}


def _inner_seals(path: Path) -> Iterator[tuple[str, Seal]]:
    try:
        yield from Seals.model_validate_json(path.read_bytes()).files.items()
    except ValidationError:  # it is as it was sealed: another version's
        return


def _check_one(folder: Path, name: str, seal: Seal, found: FilesFound) -> None:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        found.findings.append(Finding("tampered", FILE, "a line names a file outside of the run's folder"))
        return
    if not path.exists():
        found.findings.append(Finding("incomplete", name, "the ledger names it, and it is not here"))
        return
    damages = find_damage(path, seal)
    if not damages:
        found.whole.add(name)
        return
    places = [_place(path, seal, damage) for damage in damages[:_MOST_PLACES]]
    if len(damages) > _MOST_PLACES:
        places.append(f"and {len(damages) - _MOST_PLACES} more")
    found.findings.append(Finding("tampered", name, "; ".join(places)))


def _place(path: Path, seal: Seal, damage: Damage) -> str:
    size = path.stat().st_size
    where = f"bytes {damage.first} to {damage.end - 1}"
    if size != seal.size:
        where = f"expected {seal.size} bytes, found {size}; from byte {damage.first} on"
    elif damage.found is not None and damage.expected is not None:
        where = f"byte {damage.first}: expected 0x{damage.expected:02x}, found 0x{damage.found:02x}"
    inside = _in_tensors(path, damage) if path.suffix == ".safetensors" else _in_text(path, damage)
    return f"{where} ({inside})" if inside else where


def _in_text(path: Path, damage: Damage) -> str:
    text = path.read_bytes()
    first, last = line_at(text, damage.first), line_at(text, damage.end - 1)
    name = field_at(text, damage.first)
    lines = f"line {first}" if first == last else f"lines {first} to {last}"
    return f"{lines}, field {name}" if name and damage.found is not None else lines


def _in_tensors(path: Path, damage: Damage) -> str:
    try:
        with Payload(path) as payload:
            header = payload.data_start
            entries = payload.entries.items()
            names = [
                name
                for name, entry in entries
                if header + entry.start < damage.end and damage.first < header + entry.end
            ]
    except (PayloadError, ValueError):
        return "in or before the header" if damage.first < _header_bytes(path) else ""
    if damage.first < header:
        return "header" if not names else f"header and tensors up to {names[-1]}"
    if len(names) > _MOST_PLACES:
        return f"{len(names)} tensors, {names[0]} to {names[-1]}"
    return f"tensor {', '.join(names)}" if names else "behind the last tensor"


def _header_bytes(path: Path) -> int:
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")
