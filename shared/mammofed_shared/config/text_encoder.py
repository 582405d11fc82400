"""Where a text encoder's files are, and their identity: every site brings them itself, the plan names their digest."""

import hashlib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from mammofed_shared.config.hub import HUB_NAME, folder_from_hub
from mammofed_shared.errors import ConfigurationError

ENCODER_FILES = ("*.json", "*.safetensors")
"""Configuration, tokenizer and weights: what is fetched, read and counts. Nothing else of a model's folder does
(other formats of its weights, its README), so that a copy and a fetched one are the same."""


def locate_text_encoder(named: Path) -> Path:
    """The folder of a text encoder: the one that is named, or that of a model at huggingface.co.

    Called once, by the command that starts: the hub may be asked.

    Raises:
        ConfigurationError: there is neither; says how to bring it.
    """
    if named.is_dir() or named.is_absolute() or not HUB_NAME.fullmatch(str(named)):
        if not _is_whole(named):
            raise _not_there(named)
        return named
    return folder_from_hub(
        "text_encoder", str(named), ENCODER_FILES, lambda folder: _is_whole(folder) and _has_weights(folder)
    )


def folder_digest(path: Path, files: Sequence[str] = ENCODER_FILES) -> str:
    """SHA-256 over the names and contents of a folder's files, in the order of their names.

    Hidden files and sub-folders do not count: ``transformers`` reads neither.

    Args:
        files: patterns of the names that count.

    Raises:
        ConfigurationError: the folder is not there or holds no configuration.
    """
    if not (path / "config.json").is_file():
        raise _not_there(path)
    total = hashlib.sha256()
    for file in sorted(path.iterdir(), key=lambda file: file.name):
        is_counted = not file.name.startswith(".") and any(fnmatch(file.name, pattern) for pattern in files)
        if is_counted and file.is_file():
            with file.open("rb") as content:
                inner = hashlib.file_digest(content, "sha256").hexdigest()
            # Name and content are hashed apart, so that no shift between them goes unseen.
            total.update(hashlib.sha256(file.name.encode()).digest() + bytes.fromhex(inner))
    return total.hexdigest()


def _is_whole(folder: Path) -> bool:
    return (folder / "config.json").is_file() and (folder / "tokenizer.json").is_file()


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def _not_there(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"text_encoder: expected a folder with config.json and a tokenizer, found none at {path}. "
        "Copy the encoder there, or name its folder in `text_encoder`, or a model such as answerdotai/ModernBERT-base."
    )
