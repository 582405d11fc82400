"""The identity of a text-encoder folder, which every site brings itself and the plan names by digest."""

import hashlib
from pathlib import Path

from mammofed_shared.errors import ConfigurationError


def folder_digest(path: Path) -> str:
    """SHA-256 over the names and contents of a folder's files, in the order of their names.

    Hidden files (``.gitattributes``) and sub-folders do not count: ``transformers`` reads neither.

    Raises:
        ConfigurationError: the folder is not there or holds no configuration.
    """
    if not (path / "config.json").is_file():
        raise ConfigurationError(
            f"text_encoder: expected a folder with config.json and a tokenizer, found none at {path}. "
            "Copy the encoder there, or name its folder in `text_encoder`."
        )
    total = hashlib.sha256()
    for file in sorted(path.iterdir(), key=lambda file: file.name):
        if file.is_file() and not file.name.startswith("."):
            with file.open("rb") as content:
                inner = hashlib.file_digest(content, "sha256").hexdigest()
            # Name and content are hashed apart, so that no shift between them goes unseen.
            total.update(hashlib.sha256(file.name.encode()).digest() + bytes.fromhex(inner))
    return total.hexdigest()
