"""The frozen model that a run brings, as networks: read from its export, and never moved.

Frozen means that no weight and no statistic moves (domain.md §7; the authors' code let batch normalisation and dropout
go on): a frozen model is in evaluation mode for good, also inside a model that is trained.
"""

from pathlib import Path
from typing import Self

from safetensors import SafetensorError
from safetensors.torch import load_file

from mammofed_shared.config.frozen_encoder import IMAGE_FOLDER, PROJECTIONS_FILE, TEXT_FOLDER, read_encoder
from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.errors import ConfigurationError
from mammofed_shared.models.dual_encoder import DualEncoder
from mammofed_shared.models.image_encoder import ImageEncoder
from mammofed_shared.models.text_encoder import TextEncoder


class FrozenImageEncoder(ImageEncoder):
    """The image half, which stays in evaluation mode."""

    def train(self, mode: bool = True) -> Self:
        """Stays as it is."""
        super().train(False)
        return self


class FrozenDualEncoder(DualEncoder):
    """Both halves and their projections, which stay in evaluation mode."""

    def train(self, mode: bool = True) -> Self:
        """Stays as it is."""
        super().train(False)
        return self


def load_frozen_image_encoder(folder: Path) -> FrozenImageEncoder:
    """The image encoder of a frozen model, pooled as it was trained, on the CPU and without gradients.

    Args:
        folder: as `fl-server export` writes it.

    Raises:
        ConfigurationError: it is no export of a pretraining run, or its weights are of another model.
    """
    encoder = _image_encoder(folder, read_encoder(folder).task)
    return encoder.requires_grad_(False).train()


def load_frozen_dual_encoder(folder: Path) -> FrozenDualEncoder:
    """The whole frozen model: images and texts in the space in which they were trained to meet.

    Args, Raises: as ``load_frozen_image_encoder``.
    """
    task = read_encoder(folder).task
    try:
        text_encoder = TextEncoder(folder / TEXT_FOLDER, pretrained=True, pooling=task.text_encoder.pooling)
        rest = load_file(folder / PROJECTIONS_FILE)
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(f"encoder: {folder} cannot be read: {error}. Copy the export once more") from error
    model = FrozenDualEncoder(_image_encoder(folder, task), text_encoder, task.projection_dim)
    expected = {name for name in model.state_dict() if not name.startswith(("image_encoder.", "text_encoder."))}
    if set(rest) != expected:
        raise ConfigurationError(
            f"encoder: expected {', '.join(sorted(expected))} in {folder / PROJECTIONS_FILE}, found "
            f"{', '.join(sorted(rest))}"
        )
    model.load_state_dict(rest, strict=False)  # the encoders have theirs
    return model.requires_grad_(False).train()


def _image_encoder(folder: Path, task: PretrainSettings) -> FrozenImageEncoder:
    image = task.image_encoder
    return FrozenImageEncoder(image.name, weights=str(folder / IMAGE_FOLDER), pooling=image.pooling)
