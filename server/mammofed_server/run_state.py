"""The durable state of one run: what has been decided, in files that are written whole or not at all.

<folder>/run.json                     settings and digests, fixed when the run begins
<folder>/checkpoints/00000 …          one folder a turn; 00000 is the state before training
<folder>/delivered/00007.safetensors  the state of a checkpoint as sites get it, where it is encoded for them
<folder>/quality.json                 what data the sites said they hold; once all have answered, before the first turn
<folder>/evaluations/00000.json …     released numbers of the evaluation of a checkpoint
<folder>/keep.json                    which states are kept, where that was changed after the run began
<folder>/ended.json                   finished or cancelled; there is no way back
<folder>/ledger.jsonl                 a line for each of these, chained and signed (ledger.py), and certificates/
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

from mammofed_server.members import Members
from mammofed_server.schedule import Schedule, make_schedule
from mammofed_server.spool import SENT_FILE
from mammofed_shared.checkpoint import (
    STATE_FILE,
    UPDATES_FOLDER,
    Contribution,
    Failure,
    Manifest,
    link_state,
    read_checkpoint,
    read_manifest,
    write_checkpoint,
)
from mammofed_shared.config.base import Digest, Settings
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.transfer import CheckpointSettings
from mammofed_shared.errors import StateError
from mammofed_shared.files import fsync_folder, write_whole
from mammofed_shared.protocol.plan import PayloadReference
from mammofed_shared.protocol.statement import Countersigned
from mammofed_shared.protocol.task_spec import TaskSpec
from mammofed_shared.revision import code_revision

Ending = Literal["finished", "cancelled"]


class RunRecord(Settings):
    """What a run is, fixed at its beginning."""

    settings: RunSettings
    spec: TaskSpec
    text_encoder: Digest | None = None
    encoder: Digest | None = None
    """Of the frozen model that the run stands on."""


class EvaluationRecord(Settings):
    """Released numbers of one evaluation: site → metric → value; sites that failed stand in ``failures``."""

    turn: int
    round: int
    state: Digest
    metrics: Mapping[str, Mapping[str, float]]
    failures: tuple[Failure, ...] = ()
    signed: Mapping[str, Countersigned] = {}
    """Site → its statement."""
    delivered: Digest | None = None
    """Of the state as sites received it, where that was encoded."""


class QualityRecord(Settings):
    """What every site told of its data before the first turn: site → name (``protocol/quality.py``) → count."""

    counts: Mapping[str, Mapping[str, float]]
    signed: Mapping[str, Countersigned] = {}
    """Site → its statement."""
    answers: int = 0
    """Answers so far, once a newcomer has told: a site that left and joined again is asked again. 0: one of each."""

    @property
    def num_answers(self) -> int:
        """Answers so far; it grows each time that this record is written."""
        return max(self.answers, len(self.counts))


_MAY_CHANGE = frozenset({"server", "tracking", "checkpoints"})
"""Settings that do not touch the weights: address, folders, tracking and what is kept may differ when it is resumed."""


def _changed_settings(began: RunSettings, now: RunSettings) -> list[str]:
    names = set(RunSettings.model_fields) - _MAY_CHANGE
    return sorted(name for name in names if getattr(began, name) != getattr(now, name))


class LedgerOfRun(Protocol):
    """What a run's state and its plans want of the ledger (``ledger.RunLedger``)."""

    def catch_up(self) -> None:
        """Write a line for each thing that is committed and has none."""

    def head(self, turn: int) -> str:
        """Digest of the line that tells of the state after a turn."""


class RunState:
    """A run's folder. One process writes it; every reader sees only whole records."""

    def __init__(self, folder: Path, record: RunRecord) -> None:
        self.folder = folder
        self.record = record
        self.ledger: LedgerOfRun | None = None
        """Written at each commit, where the coordinator keeps one."""

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Whether a run has begun in this folder."""
        return (folder / "run.json").exists()

    @classmethod
    def open(cls, folder: Path, settings: RunSettings | None = None) -> "RunState":
        """Open a run that has begun; ``settings``, when given, must ask for the same weights.

        Raises:
            StateError: there is no run here, or it began with other settings.
        """
        path = folder / "run.json"
        try:
            record = RunRecord.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StateError(f"{folder}: no run has begun here. Start one with `fl-server --config …`.") from error
        changed = _changed_settings(record.settings, settings) if settings is not None else []
        if changed:
            raise StateError(
                f"{folder} holds run {record.settings.run!r}, which began with other settings ({', '.join(changed)} "
                "changed). Resume it with its own settings, or give the new run another `server.folder`."
            )
        return cls(folder, record)

    @classmethod
    def begin(cls, folder: Path, record: RunRecord, initial_state: Path, reference: PayloadReference) -> "RunState":
        """Begin a run with its initial state; run.json comes last and makes it begun."""
        run = cls(folder, record)
        first = run.checkpoint_folder(0)
        manifest = run._manifest(turn=0, round_number=0, state=reference)
        if first.exists() and read_manifest(first) != manifest:  # of a beginning with other settings that was killed
            shutil.rmtree(first)
        if not first.exists():
            write_checkpoint(first, manifest, link_state(initial_state, reference))
        write_whole(folder / "run.json", record.model_dump_json(indent=1))
        return run

    def keep_as(self, settings: CheckpointSettings) -> None:
        """Keep states from now on as ``settings`` say; run.json stays as the run began."""
        if settings != self.checkpoints:
            write_whole(self.folder / "keep.json", settings.model_dump_json(indent=1))

    @property
    def checkpoints(self) -> CheckpointSettings:
        """Which states are kept."""
        path = self.folder / "keep.json"
        if not path.exists():
            return self.record.settings.checkpoints
        return CheckpointSettings.model_validate_json(path.read_text(encoding="utf-8"))

    def checkpoint_folder(self, turn: int) -> Path:
        """Folder of the checkpoint after a turn."""
        return self.folder / "checkpoints" / f"{turn:05d}"

    def state_path(self, turn: int) -> Path:
        """State file of the checkpoint after a turn."""
        return self.checkpoint_folder(turn) / STATE_FILE

    def last_turn(self) -> int:
        """Number of the last committed turn."""
        return max(int(path.name) for path in (self.folder / "checkpoints").iterdir() if path.name.isdigit())

    def manifest(self, turn: int) -> Manifest:
        """Manifest of the checkpoint after a turn."""
        return read_manifest(self.checkpoint_folder(turn))

    def verify_last(self) -> None:
        """Check the last state against its digest before it is sent to anyone."""
        _, payload = read_checkpoint(self.checkpoint_folder(self.last_turn()))
        payload.close()

    def commit(
        self,
        turn: int,
        round_number: int,
        contributions: tuple[Contribution, ...],
        failures: tuple[Failure, ...],
        mean: tuple[Path, PayloadReference] | None,
        *,
        optimizer: Mapping[str, tuple[Path, PayloadReference]] | None = None,
        norms: Mapping[str, float] | None = None,
        updates: Mapping[str, Path] | None = None,
        delivered: str | None = None,
    ) -> Manifest:
        """Commit a turn: the state becomes ``mean`` (a payload file that is adopted), or stays when there is none.

        Args:
            optimizer: files of the coordinator's optimizer, by their names in the checkpoint, adopted as well. None:
                those of the checkpoint before stay.
            norms: site → L2 norm of what it changed, where the turn clips.
            updates: site → its whole update, kept with the state where the run's settings ask for it.
            delivered: digest of the state before the turn as sites received it, where that was encoded.
        """
        if self.checkpoint_folder(turn).exists():  # committed a moment ago; the ledger's line found no room
            self.enter()
            return self.manifest(turn)
        before = self.manifest(turn - 1)
        source, reference = mean if mean is not None else (self.state_path(turn - 1), before.state)
        if optimizer is None:
            folder = self.checkpoint_folder(turn - 1)
            optimizer = {name: (folder / name, digest) for name, digest in before.optimizer.items()}
        moments = {**before.moments, **{item.site: item.task_id for item in contributions}}
        manifest = self._manifest(turn, round_number, reference).model_copy(
            update={
                "contributions": contributions,
                "failures": failures,
                "skipped": (*before.skipped, *failures),
                "moments": moments,
                "optimizer": {name: digest for name, (_, digest) in optimizer.items()},
                "norms": norms or {},
                "previous": before.state.digest,
                "delivered": delivered,
            }
        )
        beside = {name: path for name, (path, _) in optimizer.items()}

        def place(target: Path) -> PayloadReference:
            if self.checkpoints.keep_updates:
                _link_updates(updates or {}, target.parent / UPDATES_FOLDER)
            return link_state(source, reference)(target)

        written = write_checkpoint(self.checkpoint_folder(turn), manifest, place, beside)
        self.enter()
        return written

    def enter(self) -> None:
        """Enter in the ledger what was committed a moment ago."""
        if self.ledger is not None:
            self.ledger.catch_up()

    def _manifest(self, turn: int, round_number: int, state: PayloadReference) -> Manifest:
        return Manifest(
            run=self.record.settings.run,
            turn=turn,
            round=round_number,
            state=state,
            settings=self.record.settings,
            spec=self.record.spec,
            text_encoder=self.record.text_encoder,
            encoder=self.record.encoder,
            code=code_revision(),
        )

    def members(self) -> Members:
        """Who takes part in which round."""
        return Members(self.folder, self.record.settings.sites)

    def schedule(self) -> Schedule:
        """All turns of the run, as its files decide them; rounds to come have the members of today."""
        members = self.members().of_round
        settings, held = self.record.settings, self.quality()
        sizes = {site: counts.get("num_exams", 0.0) for site, counts in held.counts.items()} if held else None
        return make_schedule(settings.schedule, settings.sites, members=members, seed=settings.seed, sizes=sizes)

    def commit_quality(self, record: QualityRecord) -> None:
        """Commit what every site has told of its data."""
        write_whole(self.quality_path, record.model_dump_json(indent=1))
        self.enter()

    def quality(self) -> QualityRecord | None:
        """What every site has told of its data, if all have."""
        path = self.quality_path
        return QualityRecord.model_validate_json(path.read_text()) if path.exists() else None

    @property
    def quality_path(self) -> Path:
        """Record of what the sites hold."""
        return self.folder / "quality.json"

    @property
    def members_path(self) -> Path:
        """Who takes part in which round (``members.py``), once a round is settled."""
        return self.folder / "members.json"

    def evaluation_path(self, turn: int) -> Path:
        """Record of the evaluation of the checkpoint after a turn."""
        return self.folder / "evaluations" / f"{turn:05d}.json"

    def commit_evaluation(self, record: EvaluationRecord) -> None:
        """Commit the released numbers of an evaluation."""
        write_whole(self.evaluation_path(record.turn), record.model_dump_json(indent=1))
        self.enter()

    def evaluation(self, turn: int) -> EvaluationRecord | None:
        """The evaluation of a turn's checkpoint, if it was made."""
        path = self.evaluation_path(turn)
        return EvaluationRecord.model_validate_json(path.read_text()) if path.exists() else None

    def end(self, ending: Ending) -> None:
        """Record that the run is over."""
        write_whole(self.ending_path, json.dumps({"ending": ending}))
        self.enter()

    def ending(self) -> Ending | None:
        """How the run ended, or None while it can go on."""
        path = self.ending_path
        return json.loads(path.read_text())["ending"] if path.exists() else None

    @property
    def ending_path(self) -> Path:
        """Record of the run's end."""
        return self.folder / "ended.json"


def _link_updates(updates: Mapping[str, Path], folder: Path) -> None:
    folder.mkdir()
    for site, path in updates.items():
        os.link(path, folder / f"{site}.safetensors")
        sent = path.with_name(SENT_FILE)
        if sent.exists():
            os.link(sent, folder / f"{site}.sent.safetensors")
    fsync_folder(folder)
