"""The model of a run that stands on a frozen one, as `fl-server export` wrote it: what a site explains risks with.

<folder>/heads.safetensors, manifest.json
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from mammofed_shared.config.base import Digest
from mammofed_shared.config.tasks import TaskSettings
from mammofed_shared.errors import ConfigurationError
from mammofed_shared.training.tasks import code_of

_WEIGHTS_FILE, _MANIFEST_FILE = "heads.safetensors", "manifest.json"


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """A model in evaluation mode on the CPU, the settings of its task, and where it comes from: run, turn, the software
    that made it, and the SHA-256 of its weights' file."""

    model: nn.Module
    task: TaskSettings
    run: str
    turn: int
    code: str
    digest: str


def load_exported(folder: Path, tasks: Collection[str], encoder: Digest) -> ExportedModel:
    """Read the model of an export.

    Args:
        folder: as `fl-server export` writes it.
        tasks: names of the tasks that will do.
        encoder: digest of the frozen model that it shall stand on.

    Raises:
        ConfigurationError: it is no export of such a run, or not all of one; it stands on another frozen model.
    """
    wanted = " or ".join(sorted(tasks))
    try:
        manifest = _Manifest.model_validate_json((folder / _MANIFEST_FILE).read_bytes())
        weights = load_file(folder / _WEIGHTS_FILE)
    except (OSError, SafetensorError, ValidationError) as error:
        raise ConfigurationError(
            f"{folder}: expected the export of a run of {wanted} ({_WEIGHTS_FILE}, {_MANIFEST_FILE}): {error}. The "
            "lead makes it with `fl-server export`; copy all of it"
        ) from error
    task = manifest.settings.task
    if task.name not in tasks:
        raise ConfigurationError(f"{folder}: expected the export of a run of {wanted}, found one of {task.name}")
    if manifest.encoder != encoder:
        raise ConfigurationError(
            f"{folder}: stands on the frozen model {manifest.encoder}, `encoder` of this site is {encoder}: name the "
            "run's own in `encoder`"
        )
    model = code_of(task).build_model(task, None, False)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigurationError(f"{folder}: {_WEIGHTS_FILE} is of another model than its manifest: {error}") from error
    with (folder / _WEIGHTS_FILE).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ExportedModel(model.eval().requires_grad_(False), task, manifest.run, manifest.turn, manifest.code, digest)


class _Settings(BaseModel):
    """What counts here of a run's settings; the rest may be of another version of this software."""

    model_config = ConfigDict(extra="ignore")

    task: TaskSettings


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="ignore")

    run: str
    turn: int
    code: str
    encoder: Digest | None
    settings: _Settings
