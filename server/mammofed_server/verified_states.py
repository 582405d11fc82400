"""Does each state follow from the one before: by digests, and by computing a mean again where its updates are kept?"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mammofed_server.entries import key_of
from mammofed_server.folding import SiteUpdate, fold
from mammofed_server.run_state import RunState
from mammofed_shared.checkpoint import UPDATES_FOLDER, Manifest
from mammofed_shared.errors import MammofedError
from mammofed_shared.ledger import Line
from mammofed_shared.ledger_check import Finding

ADOPTED = "alternating"
"""The strategy whose one update becomes the state as it is."""


def check_chain_of_states(lines: list[Line]) -> Iterator[Finding]:
    """Each turn must start from the state before, and a visit that stands alone must give the next state."""
    state, last, number = None, None, 0
    for line in lines:
        if line.number != number + 1:  # a line between is broken, and told of
            state, last = None, None
        number = line.number
        entry = line.entry
        kind, turn = key_of(entry)
        if kind == "begun":
            state, last = entry["state"], 0
        if kind != "turn":
            continue
        where = f"ledger.jsonl, line {line.number}"
        if last is not None and turn != last + 1:
            yield Finding("tampered", where, f"turn {turn} stands where turn {last + 1} is expected")
        if state is not None and entry["before"] != state:
            yield Finding("tampered", where, f"field before: turn {turn} starts from another state than the last one")
        for what in _what_does_not_follow(entry):
            yield Finding("tampered", where, what)
        state, last = entry["state"], turn


def _what_does_not_follow(entry: dict[str, Any]) -> Iterator[str]:
    contributions = entry["contributions"]
    if not contributions and entry["state"] != entry["before"]:
        yield "field state: nobody contributed, and it is another state"
    whole = [item["decoded"] or item["update"] for item in contributions]
    if entry["strategy"] == ADOPTED and contributions and whole != [entry["state"]]:
        yield "field state: it is not the one update that the turn adopted"
    names = [item["task_id"] for item in contributions]
    if len(set(names)) != len(names):
        yield "field contributions: one counts twice"


def is_kept(run: RunState, manifest: Manifest) -> bool:
    """Whether every update that a state was folded from is here, and the state that it started from."""
    paths = [update.path for update in _updates(run, manifest)]
    return len(paths) > 0 and all(path.exists() for path in (*paths, run.state_path(manifest.turn - 1)))


def recompute(run: RunState, manifest: Manifest, work: Path | None) -> Finding | None:
    """Fold a turn's retained updates again, with the code that folded them, and compare the result to the bit.

    Args:
        run: the run.
        manifest: of the checkpoint in question.
        work: where the state is written for a moment; the system's temporary folder when not given.
    """
    where = f"checkpoints/{manifest.turn:05d}"
    try:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            folded = fold(
                run.schedule().turns[manifest.turn - 1],
                run.checkpoint_folder(manifest.turn - 1),
                _updates(run, manifest),
                manifest.spec,
                Path(folder) / "folding",
            )
    except (MammofedError, OSError, KeyError, ValueError) as error:
        return Finding("tampered", where, f"its updates cannot be folded again: {error}")
    assert folded.state is not None, "there are updates"
    made = {"state.safetensors": folded.state[1]}
    made |= {name: reference for name, (_, reference) in (folded.optimizer or {}).items()}
    written = {"state.safetensors": manifest.state, **manifest.optimizer}
    wrong = [name for name, reference in written.items() if made.get(name) != reference]
    return Finding("tampered", where, f"its updates give another {', '.join(wrong)}") if wrong else None


def _updates(run: RunState, manifest: Manifest) -> list[SiteUpdate]:
    folder = run.checkpoint_folder(manifest.turn) / UPDATES_FOLDER
    is_equal = run.schedule().turns[manifest.turn - 1].phase.weighting == "equal"
    return [
        SiteUpdate(
            item.site,
            folder / f"{item.site}.safetensors",
            item.whole,
            1.0 if is_equal else item.metrics[manifest.spec.weight_key],
        )
        for item in manifest.contributions
    ]
