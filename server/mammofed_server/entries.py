"""What a line of the coordinator's ledger says: derived from the run's committed files, and so derivable again.

Each entry names the files that it stands for with their seals. Of a file that grows the last line that names it counts.

    begun       settings, model, text encoder, first state, the consortium's root
    asked       what data the sites hold; once more when a newcomer has told
    members     who takes part from a round on
    turn        a state, and what it was made of
    evaluated   released numbers of a state
    ended       finished or cancelled
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from mammofed_server.run_state import RunState
from mammofed_shared.canonical import digest_of
from mammofed_shared.checkpoint import MANIFEST_FILE, SEALS_FILE, Contribution, Failure, Manifest
from mammofed_shared.errors import IdentityError
from mammofed_shared.pki import certificate_fingerprint
from mammofed_shared.pki.signature import CertificateStore, certificate_digest
from mammofed_shared.protocol.statement import Countersigned, num_exams_of
from mammofed_shared.seal import seal_file

CERTIFICATES = "certificates"
"""Folder of a run with the certificates that its ledger refers to."""

Key = tuple[str, int]
"""Kind of an entry, and the number that tells it from others of its kind; 0 where there is one only."""
_NUMBERED_BY = {"asked": "answers", "members": "round", "turn": "turn", "evaluated": "turn"}
BEGUN: Key = ("begun", 0)


def key_of(entry: dict[str, Any]) -> Key:
    """Which entry of its run this is."""
    kind = str(entry["kind"])
    name = "sites" if kind == "asked" and "sites" in entry else _NUMBERED_BY.get(kind)  # `sites`: of an earlier version
    return kind, int(entry[name]) if name is not None else 0


def line_of_state(turn: int) -> Key:
    """The entry that tells of the state after a turn; 0 is the state before training."""
    return ("turn", turn) if turn else BEGUN


def committed(run: RunState) -> Iterator[Key]:
    """What is committed, in the order in which it usually is."""
    evaluated = {int(path.stem) for path in (run.folder / "evaluations").glob("*.json")}
    yield BEGUN
    quality, members = run.quality(), run.members()
    if quality is not None:
        yield "asked", quality.num_answers
    if members.settled:
        yield "members", members.settled
    for turn in range(run.last_turn() + 1):
        if turn:
            yield "turn", turn
        if turn in evaluated:
            yield "evaluated", turn
    if run.ending_path.exists():
        yield "ended", 0


def entry_of(run: RunState, key: Key) -> dict[str, Any]:
    """The entry for something that is committed.

    Raises:
        CheckpointError, ValueError, OSError: a file that it stands for is not readable.
    """
    kind, number = key
    return {"kind": kind, **_MAKE[kind](run, number)}


def _begun(run: RunState, number: int) -> dict[str, Any]:
    record, manifest = run.record, run.manifest(0)
    return {
        "run": record.settings.run,
        "consortium": record.settings.consortium,
        "root": _root(run),
        "configuration": record.settings.digest,
        "strategy": record.settings.schedule.in_words,
        "task": digest_of(record.spec.model_dump(mode="json")),
        "text_encoder": record.text_encoder,
        "encoder": record.encoder,
        "code": manifest.code,
        "state": manifest.state.digest,
        "files": _seals(run, "run.json", *_checkpoint_files(run, 0)),
    }


def _root(run: RunState) -> dict[str, str] | None:
    try:
        root = CertificateStore(run.folder / CERTIFICATES).root()
    except IdentityError:  # a simulation: nobody has a certificate
        return None
    return {"certificate": certificate_digest(root), "fingerprint": certificate_fingerprint(root)}


def _asked(run: RunState, number: int) -> dict[str, Any]:
    record = run.quality()
    assert record is not None, "it is committed"
    return {"answers": number, "signed": _signed(record.signed), "files": _seals(run, "quality.json")}


def _members(run: RunState, number: int) -> dict[str, Any]:
    members = run.members().of_round(number)
    return {"round": number, "members": list(members), "files": _seals(run, "members.json")}


def _turn(run: RunState, turn: int) -> dict[str, Any]:
    manifest, phase = run.manifest(turn), run.schedule().turns[turn - 1].phase
    is_alternating = phase.kind == "alternating"
    is_weighed = not is_alternating and phase.weighting == "exams"
    return {
        "turn": turn,
        "round": manifest.round,
        "before": manifest.previous,
        "delivered": manifest.delivered,
        "state": manifest.state.digest,
        "strategy": "alternating" if is_alternating else phase.strategy.name,
        "contributions": [_contribution(manifest, item, is_weighed) for item in manifest.contributions],
        "failures": [_failure(item) for item in manifest.failures],
        "code": manifest.code,
        "files": _seals(run, *_checkpoint_files(run, turn)),
    }


def _contribution(manifest: Manifest, item: Contribution, is_weighed: bool) -> dict[str, Any]:
    return {
        "site": item.site,
        "task_id": item.task_id,
        "update": item.update.digest,
        "decoded": item.decoded.digest if item.decoded is not None else None,
        "num_exams": num_exams_of(item.metrics),
        "weight": float(item.metrics[manifest.spec.weight_key]) if is_weighed else 1.0,
        "signed": item.signed.model_dump(mode="json") if item.signed is not None else None,
    }


def _failure(item: Failure) -> dict[str, str]:
    return {"site": item.site, "task_id": item.task_id, "code": item.code}


def _evaluated(run: RunState, turn: int) -> dict[str, Any]:
    record = run.evaluation(turn)
    assert record is not None, "it is committed"
    return {
        "turn": turn,
        "state": record.state,
        "delivered": record.delivered,
        "signed": _signed(record.signed),
        "failures": [_failure(item) for item in record.failures],
        "files": _seals(run, f"evaluations/{turn:05d}.json"),
    }


def _ended(run: RunState, number: int) -> dict[str, Any]:
    return {"ending": run.ending(), "files": _seals(run, "ended.json")}


_MAKE: Mapping[str, Callable[[RunState, int], dict[str, Any]]] = {
    "begun": _begun,
    "asked": _asked,
    "members": _members,
    "turn": _turn,
    "evaluated": _evaluated,
    "ended": _ended,
}


def _signed(statements: Any) -> dict[str, Any]:
    by_site: dict[str, Countersigned] = dict(statements)
    return {site: signed.model_dump(mode="json") for site, signed in by_site.items()}


def _checkpoint_files(run: RunState, turn: int) -> list[str]:
    folder = run.checkpoint_folder(turn)
    names = [name for name in (MANIFEST_FILE, SEALS_FILE) if (folder / name).exists()]
    return [f"checkpoints/{turn:05d}/{name}" for name in names]


def _seals(run: RunState, *names: str) -> dict[str, Any]:
    return {name: seal_file(run.folder / name).model_dump(mode="json") for name in names}


def missing(run: RunState, have: Collection[Key]) -> Iterator[Key]:
    """What is committed and has no line yet."""
    return (key for key in committed(run) if key not in have)
