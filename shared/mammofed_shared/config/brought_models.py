"""The models that a run and each of its sites bring as files: where they are, and whether they are the run's."""

from collections.abc import Mapping
from pathlib import Path

from mammofed_shared.config.frozen_encoder import encoder_digest, locate_encoder
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.config.tasks import Model
from mammofed_shared.config.text_encoder import folder_digest, locate_text_encoder
from mammofed_shared.errors import RefusalCode

MISMATCH: Mapping[Model, RefusalCode] = {
    "text_encoder": RefusalCode.TEXT_ENCODER_MISMATCH,
    "encoder": RefusalCode.ENCODER_MISMATCH,
}
"""What a site answers where its model is not the plan's."""
IN_WORDS: Mapping[Model, str] = {"text_encoder": "text encoder", "encoder": "frozen model"}


def digest_of(model: Model, folder: Path) -> str:
    """SHA-256 of the files of a model that count.

    Raises:
        ConfigurationError: the folder is not there, or not whole.
    """
    return folder_digest(folder) if model == "text_encoder" else encoder_digest(folder)


def with_located_models(settings: SiteSettings) -> SiteSettings:
    """A site's settings with the text encoder's folder in place of its name at the hub; called once, by the command
    that starts.

    Raises:
        ConfigurationError: a model that is named is not there, and cannot be fetched; says how to bring it.
    """
    if settings.encoder is not None:
        locate_encoder(settings.encoder)
    if settings.text_encoder is None:
        return settings
    return settings.model_copy(update={"text_encoder": locate_text_encoder(settings.text_encoder)})
