"""Where the two MarianMT models of ``augment-text`` are: a folder, or a name at huggingface.co that is fetched once."""

from pathlib import Path

from mammofed_shared.config.hub import HUB_NAME, folder_from_hub
from mammofed_shared.config.site import TranslationSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.data.translations import TranslationRecipe
from mammofed_shared.errors import ConfigurationError

_FILES = ("config.json", "vocab.json", "source.spm", "target.spm")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_FETCHED = (*_FILES, *_WEIGHTS, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")


def locate_models(settings: TranslationSettings) -> tuple[Path, Path]:
    """Folders of the model to Italian and of the one to English, each with all its files.

    Raises:
        ConfigurationError: a folder is not there or lacks a file, or the hub cannot be reached.
    """
    return _locate("to_italian", settings.to_italian), _locate("to_english", settings.to_english)


def recipe_of(models: tuple[Path, Path], beams: int) -> TranslationRecipe:
    """What the translations of these models are known by."""
    to_italian, to_english = (folder_digest(model, ("*",)) for model in models)
    return TranslationRecipe(to_italian, to_english, beams)


def _locate(key: str, name: str) -> Path:
    folder = Path(name)
    if not folder.is_dir():
        if not HUB_NAME.fullmatch(name):
            raise ConfigurationError(
                f"translation.{key}: expected the folder of a MarianMT model or a name such as "
                f"Helsinki-NLP/opus-mt-en-it, found no folder {name}"
            )
        folder = folder_from_hub(f"translation.{key}", name, _FETCHED, lambda folder: not _missing(folder))
    missing = _missing(folder)
    if missing:
        raise ConfigurationError(
            f"translation.{key}: {folder} lacks {', '.join(missing)}. Copy the model's whole folder there: "
            "the two .spm files are its SentencePiece tokenizer"
        )
    return folder


def _missing(folder: Path) -> list[str]:
    missing = [file for file in _FILES if not (folder / file).is_file()]
    return missing + ([] if any((folder / file).is_file() for file in _WEIGHTS) else [" or ".join(_WEIGHTS)])
