"""A checkpoint: the joint state after a turn, and a manifest that says how it came to be. Written whole or not at all.

<checkpoint>/state.safetensors      all exchanged tensors
<checkpoint>/…-moments.safetensors  of the coordinator's optimizer, where the run has one
<checkpoint>/manifest.json          a Manifest
<checkpoint>/seals.json             Seals of all other files here, to find a changed byte by; the ledger has its seal
<checkpoint>/updates/<site>.safetensors        the whole update of a site, where updates are kept
<checkpoint>/updates/<site>.sent.safetensors   what the site sent, where that was encoded
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import Field

from mammofed_shared.config.base import Digest, Settings
from mammofed_shared.config.run import RunSettings
from mammofed_shared.errors import CheckpointError
from mammofed_shared.files import fsync_folder, write_whole
from mammofed_shared.protocol.payload import Payload, reference_of
from mammofed_shared.protocol.plan import PayloadReference
from mammofed_shared.protocol.statement import Countersigned
from mammofed_shared.protocol.task_spec import TaskSpec
from mammofed_shared.seal import Seal, seal_file

STATE_FILE = "state.safetensors"
MANIFEST_FILE = "manifest.json"
SEALS_FILE = "seals.json"
UPDATES_FOLDER = "updates"


class Contribution(Settings):
    """What one site added in a turn."""

    site: str
    task_id: str
    update: PayloadReference
    """What the site sent."""
    decoded: PayloadReference | None = None
    """The whole update that the coordinator made of it; None: it was sent whole."""
    metrics: Mapping[str, float]
    signed: Countersigned | None = None
    """The site's statement; None of a simulation, or of a site whose protocol has none."""

    @property
    def whole(self) -> PayloadReference:
        """The update as it is folded into the next state."""
        return self.decoded or self.update


class Failure(Settings):
    """A visit that added nothing, and why (a name of ``errors.RefusalCode``)."""

    site: str
    task_id: str
    code: str


class Manifest(Settings):
    """How a state came to be, and all that is needed to use it."""

    run: str
    turn: int = Field(ge=0)
    """0 is the state before any training."""
    round: int = Field(ge=0)
    contributions: tuple[Contribution, ...] = ()
    failures: tuple[Failure, ...] = ()
    skipped: tuple[Failure, ...] = ()
    """Every visit of the run so far that added nothing: what this model has not seen."""
    moments: Mapping[str, str] = {}
    """Site → task whose optimizer moments the site goes on from."""
    state: PayloadReference
    optimizer: Mapping[str, PayloadReference] = {}
    """Files of the coordinator's optimizer beside the state, by name."""
    norms: Mapping[str, float] = {}
    """Site → L2 norm of what its update changed, before it was clipped; of turns that clip."""
    previous: Digest | None = None
    """Digest of the state before this turn."""
    delivered: Digest | None = None
    """Digest of the state before this turn as sites received it, where that was encoded."""
    settings: RunSettings
    spec: TaskSpec
    text_encoder: Digest | None = None
    encoder: Digest | None = None
    """Of the frozen model that the run stands on."""
    code: str
    """Version and source digest of the software that made it."""


class Seals(Settings):
    """Seals of the large files of a checkpoint, by their names in its folder."""

    files: Mapping[str, Seal]


def write_checkpoint(
    folder: Path,
    manifest: Manifest,
    place_state: Callable[[Path], PayloadReference],
    beside: Mapping[str, Path] | None = None,
) -> Manifest:
    """Commit a checkpoint by renaming a finished folder; a kill at any moment leaves either none or all of it.

    Args:
        folder: the final folder; must not exist.
        manifest: its ``state`` is replaced by what ``place_state`` returns.
        place_state: puts the state file at the path that it is given.
        beside: name → file that is adopted under that name, without a copy.

    Returns:
        The manifest as written.
    """
    temporary = folder.with_name(f".{folder.name}.writing")
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    reference = place_state(temporary / STATE_FILE)
    for name, source in (beside or {}).items():
        os.link(source, temporary / name)
    complete = manifest.model_copy(update={"state": reference})
    write_whole(temporary / MANIFEST_FILE, complete.model_dump_json(indent=1))
    write_whole(temporary / SEALS_FILE, _seals(temporary, complete).model_dump_json(indent=1))
    temporary.rename(folder)
    fsync_folder(folder.parent)
    return complete


def _seals(folder: Path, manifest: Manifest) -> Seals:
    """Seals of all files of a checkpoint but its manifest, which the ledger seals itself."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_FILE)
    known = {STATE_FILE: manifest.state.digest}  # as they were hashed when they came or were made
    known |= {name: found.digest for name, found in manifest.optimizer.items()}
    known |= {f"{UPDATES_FOLDER}/{item.site}.safetensors": item.whole.digest for item in manifest.contributions}
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return Seals(files={name: seal_file(path, known.get(name)) for name, path in names.items()})


def link_state(source: Path, reference: PayloadReference) -> Callable[[Path], PayloadReference]:
    """A ``place_state`` that adopts an existing payload without copying it."""

    def place(target: Path) -> PayloadReference:
        os.link(source, target)
        return reference

    return place


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint, without reading its state.

    Raises:
        CheckpointError: there is none, or it is not one of ours.
    """
    try:
        return Manifest.model_validate_json((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: not a checkpoint: {error}") from error


def read_checkpoint(folder: Path) -> tuple[Manifest, Payload]:
    """A checkpoint, verified against its manifest: the one way to read one.

    Raises:
        CheckpointError: the state, or a file of the coordinator's optimizer, is missing or is not the one whose digest
            the manifest holds.
    """
    manifest = read_manifest(folder)
    path = folder / STATE_FILE
    try:
        found = reference_of(path)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: the state is missing ({error.strerror}); `checkpoints.keep_last` of the run says which are kept"
        ) from error
    if found != manifest.state:
        raise CheckpointError(f"{folder}: expected state {manifest.state.digest}, found {found.digest}")
    for name, expected in manifest.optimizer.items():
        if not (folder / name).exists() or reference_of(folder / name) != expected:
            raise CheckpointError(f"{folder}: {name} is missing, or is not the one whose digest the manifest holds")
    return manifest, Payload(path)
