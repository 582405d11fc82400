"""The digest of a text-encoder folder."""

from pathlib import Path

import pytest

from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.errors import ConfigurationError


def folder(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name.replace("_json", ".json")).write_text(content)
    return path


def test_digest_sees_every_name_and_every_byte_and_nothing_hidden(tmp_path: Path) -> None:
    first = folder_digest(folder(tmp_path / "a", config_json="{}", tokenizer_json="ab"))
    equal = folder(tmp_path / "b", config_json="{}", tokenizer_json="ab")
    (equal / ".cache").write_text("hidden")

    assert folder_digest(equal) == first
    assert folder_digest(folder(tmp_path / "c", config_json="{}", tokenizer_json="ac")) != first
    assert folder_digest(folder(tmp_path / "d", config_json="{}", tokens_json="ab")) != first
    assert folder_digest(folder(tmp_path / "e", config_json="{}a", tokenizer_json="b")) != first


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        folder_digest(tmp_path)
