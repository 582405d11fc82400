"""The frozen model that a run brings: where its folder is, what it is, and its identity. Free of torch.

<encoder>/image_encoder/, text_encoder/, projections.safetensors, manifest.json    as `fl-server export` writes them

Every site has the same folder, and each plan names its digest. What a user may add to an export (README.md, the
provenance) does not count.
"""

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from mammofed_shared.config.base import Settings
from mammofed_shared.config.features import FeatureKind
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.errors import ConfigurationError

IMAGE_FOLDER, TEXT_FOLDER = "image_encoder", "text_encoder"
PROJECTIONS_FILE = "projections.safetensors"
_MANIFEST_FILE = "manifest.json"  # of a checkpoint, and copied into its export (checkpoint.py)
_IMAGE_PROJECTION = "image_projection.weight"


class EncoderDescription(Settings):
    """What a frozen model is, without its weights."""

    task: PretrainSettings
    """Settings of the run that trained it: the architecture of both encoders, and how they are pooled."""
    preprocessing: PreprocessingSettings
    """What its training images were."""
    num_features: int
    """Length of an image's pooled vector."""

    @property
    def num_channels(self) -> int:
        """Channels of the feature map."""
        return self.num_features // (2 if self.task.image_encoder.pooling == "avgmax" else 1)

    def width_of(self, kind: FeatureKind) -> int:
        """Length of one vector of these features."""
        return self.num_features if kind.kind == "pooled" else self.num_channels


def locate_encoder(named: Path) -> Path:
    """The folder of a frozen model, looked at by the command that starts.

    Raises:
        ConfigurationError: it is not there, or not whole.
    """
    read_encoder(named)
    return named


def read_encoder(folder: Path) -> EncoderDescription:
    """What the frozen model in a folder is.

    Raises:
        ConfigurationError: the folder is no export of a pretraining run, or not all of one.
    """
    needed = (
        f"{IMAGE_FOLDER}/config.json",
        f"{IMAGE_FOLDER}/model.safetensors",
        f"{TEXT_FOLDER}/config.json",
        f"{TEXT_FOLDER}/model.safetensors",
        PROJECTIONS_FILE,
        _MANIFEST_FILE,
    )
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise _not_an_export(folder, f"{', '.join(missing)} missing")
    try:
        made_by = _Manifest.model_validate_json((folder / _MANIFEST_FILE).read_bytes()).settings
        with safe_open(folder / PROJECTIONS_FILE, "np") as projections:
            _, num_features = projections.get_slice(_IMAGE_PROJECTION).get_shape()
    except (OSError, ValidationError, SafetensorError, ValueError) as error:
        raise _not_an_export(folder, str(error)) from error
    return EncoderDescription(task=made_by.task, preprocessing=made_by.preprocessing, num_features=num_features)


def encoder_digest(folder: Path) -> str:
    """SHA-256 of all that decides what the frozen model computes.

    Raises:
        ConfigurationError: as ``read_encoder``.
    """
    read_encoder(folder)
    total = hashlib.sha256()
    for part in (IMAGE_FOLDER, TEXT_FOLDER):
        total.update(bytes.fromhex(folder_digest(folder / part)))
    for name in (PROJECTIONS_FILE, _MANIFEST_FILE):
        with (folder / name).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


class _Settings(BaseModel):
    """What counts here of a run's settings; the rest may be of another version of this software."""

    model_config = ConfigDict(extra="ignore")

    task: PretrainSettings
    preprocessing: PreprocessingSettings


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="ignore")

    settings: _Settings


def _not_an_export(folder: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"encoder: expected a pretrained model at {folder}: {why}. `fl-server export` of the pretraining run writes "
        "such a folder; copy all of it, and name it in `encoder`"
    )
