"""Where payloads travelled as bfloat16: is what was folded what the sites have sent, and what they received the state?

Both are functions of files, so they are made again where the files are here: an update from what was sent and, of a
difference, the state before; a received state from the whole one.
"""

import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mammofed_server.entries import key_of
from mammofed_server.run_state import RunState
from mammofed_shared.checkpoint import MANIFEST_FILE, STATE_FILE, UPDATES_FOLDER, Contribution
from mammofed_shared.errors import MammofedError
from mammofed_shared.ledger import Line
from mammofed_shared.ledger_check import Finding
from mammofed_shared.protocol.encoding import decode, encode, encoded_names


@dataclass(slots=True)
class EncodingsFound:
    """What was made again."""

    findings: list[Finding] = field(default_factory=list)
    num_sent: int = 0
    """Updates that came encoded."""
    num_decoded: int = 0
    """Of them, those that were decoded again."""
    num_encoded: int = 0
    """States that were encoded again."""


def check_encodings(run: RunState, lines: list[Line], whole: Collection[str], work: Path | None) -> EncodingsFound:
    """Decode every retained update and encode every retained state again, and compare the digests.

    Args:
        run: the run.
        lines: the intact lines of its ledger.
        whole: files that are as they were sealed; with others nothing is computed.
        work: where files are written for a moment; the system's temporary folder when not given.
    """
    found = EncodingsFound()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        target = Path(folder) / "again.safetensors"
        for turn, digest in sorted(_delivered(lines).items()):
            if _state_of(turn) in whole:
                found.num_encoded += 1
                found.findings += _encoded_again(run, turn, digest, target)
        for line in lines:
            kind, turn = key_of(line.entry)
            if kind == "turn" and f"checkpoints/{turn:05d}/{MANIFEST_FILE}" in whole:
                for item in run.manifest(turn).contributions:
                    if item.decoded is not None:
                        found.num_sent += 1
                        _check_update(run, turn, item, whole, target, found)
    return found


def _state_of(turn: int) -> str:
    return f"checkpoints/{turn:05d}/{STATE_FILE}"


def _delivered(lines: list[Line]) -> dict[int, str]:
    """Turn → digest of its state as sites received it; where lines disagree, a site's statement disagrees as well."""
    found: dict[int, str] = {}
    for line in lines:
        kind, turn = key_of(line.entry)
        if kind in ("turn", "evaluated") and line.entry["delivered"] is not None:
            found[turn - 1 if kind == "turn" else turn] = line.entry["delivered"]
    return found


def _encoded_again(run: RunState, turn: int, digest: str, target: Path) -> Iterator[Finding]:
    names = encoded_names(run.record.spec, run.record.settings.transfer.download)
    try:
        made = encode(run.state_path(turn), target, names).digest
    except (MammofedError, OSError, KeyError, ValueError) as error:
        yield Finding("tampered", _state_of(turn), f"it cannot be encoded again: {error}")
        return
    if made != digest:
        yield Finding("tampered", _state_of(turn), f"it does not give what sites received, {digest}")


def _check_update(
    run: RunState, turn: int, item: Contribution, whole: Collection[str], target: Path, found: EncodingsFound
) -> None:
    before = f"checkpoints/{turn:05d}/{UPDATES_FOLDER}/{item.site}"
    sent, is_difference = f"{before}.sent.safetensors", run.record.settings.transfer.upload == "delta"
    if sent not in whole or (is_difference and _state_of(turn - 1) not in whole):
        return
    found.num_decoded += 1
    try:
        made = decode(run.folder / sent, target, run.state_path(turn - 1) if is_difference else None)
    except (MammofedError, OSError, KeyError, ValueError) as error:
        found.findings.append(Finding("tampered", sent, f"it cannot be decoded again: {error}"))
        return
    if made != item.decoded:
        what = f"it is not what {item.site} has sent, decoded"
        found.findings.append(Finding("tampered", f"{before}.safetensors", what))
