"""What a line of the coordinator's ledger says: derived from the run's committed files, and so derivable again.

Each entry names the files that it stands for with their seals. Kinds: ``begun``, ``asked`` (what data the sites hold),
``turn``, ``evaluated``, ``ended``.
"""

from collections.abc import Collection, Iterator
from typing import Any

from mammofed_server.run_state import RunState
from mammofed_shared.canonical import digest_of
from mammofed_shared.checkpoint import MANIFEST_FILE, SEALS_FILE, Contribution, Failure, Manifest
from mammofed_shared.errors import IdentityError
from mammofed_shared.pki import certificate_fingerprint
from mammofed_shared.pki.signature import CertificateStore, certificate_digest
from mammofed_shared.protocol.statement import Countersigned
from mammofed_shared.seal import seal_file

CERTIFICATES = "certificates"
"""Folder of a run with the certificates that its ledger refers to."""

Key = tuple[str, int]
"""Kind of an entry, and its turn; 0 where it has none."""
BEGUN: Key = ("begun", 0)


def key_of(entry: dict[str, Any]) -> Key:
    """Which entry of its run this is."""
    return str(entry.get("kind")), int(entry.get("turn", 0))


def line_of_state(turn: int) -> Key:
    """The entry that tells of the state after a turn; 0 is the state before training."""
    return ("turn", turn) if turn else BEGUN


def committed(run: RunState) -> Iterator[Key]:
    """What is committed, in the order in which it usually is."""
    evaluated = {int(path.stem) for path in (run.folder / "evaluations").glob("*.json")}
    yield BEGUN
    if run.quality_path.exists():
        yield "asked", 0
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
    kind, turn = key
    make = {"begun": _begun, "asked": _asked, "turn": _turn, "evaluated": _evaluated, "ended": _ended}[kind]
    return {"kind": kind, **make(run, turn)}


def _begun(run: RunState, turn: int) -> dict[str, Any]:
    record, manifest = run.record, run.manifest(0)
    return {
        "run": record.settings.run,
        "consortium": record.settings.consortium,
        "root": _root(run),
        "configuration": record.settings.digest,
        "strategy": record.settings.schedule.in_words,
        "task": digest_of(record.spec.model_dump(mode="json")),
        "text_encoder": record.text_encoder,
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


def _asked(run: RunState, turn: int) -> dict[str, Any]:
    record = run.quality()
    assert record is not None, "it is committed"
    return {"signed": _signed(record.signed), "files": _seals(run, "quality.json")}


def _turn(run: RunState, turn: int) -> dict[str, Any]:
    manifest = run.manifest(turn)
    return {
        "turn": turn,
        "round": manifest.round,
        "before": manifest.previous,
        "delivered": manifest.delivered,
        "state": manifest.state.digest,
        "contributions": [_contribution(manifest, item) for item in manifest.contributions],
        "failures": [_failure(item) for item in manifest.failures],
        "code": manifest.code,
        "files": _seals(run, *_checkpoint_files(run, turn)),
    }


def _contribution(manifest: Manifest, item: Contribution) -> dict[str, Any]:
    return {
        "site": item.site,
        "task_id": item.task_id,
        "update": item.update.digest,
        "decoded": item.decoded.digest if item.decoded is not None else None,
        "weight": float(item.metrics.get(manifest.spec.weight_key, 0)),
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
        "signed": _signed(record.signed),
        "failures": [_failure(item) for item in record.failures],
        "files": _seals(run, f"evaluations/{turn:05d}.json"),
    }


def _ended(run: RunState, turn: int) -> dict[str, Any]:
    return {"ending": run.ending(), "files": _seals(run, "ended.json")}


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
