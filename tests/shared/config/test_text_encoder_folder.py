"""Where a text encoder is, and the digest of its folder."""

from pathlib import Path

import huggingface_hub.constants
import pytest

from mammofed_shared.config.text_encoder import folder_digest, locate_text_encoder
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


def test_what_is_not_read_does_not_count_so_a_copy_has_the_digest_of_what_was_fetched(tmp_path: Path) -> None:
    fetched = folder(tmp_path / "fetched", config_json="{}", tokenizer_json="ab")
    copied = folder(tmp_path / "copied", config_json="{}", tokenizer_json="ab")
    for name in ("README.md", "pytorch_model.bin", "model.onnx"):
        (copied / name).write_text("of another kind")
    (copied / "onnx").mkdir()

    assert folder_digest(copied) == folder_digest(fetched)
    (copied / "model.safetensors").write_text("weights")
    assert folder_digest(copied) != folder_digest(fetched)
    assert folder_digest(fetched, ("*",)) != folder_digest(copied, ("*",))


def _cache(monkeypatch: pytest.MonkeyPatch, path: Path, files: dict[str, str]) -> Path:
    """The hub's cache with one model, as a fetch leaves it: names that link to contents."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = path / "models--some--encoder"
    snapshot = model / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("a" * 40)
    (model / "blobs").mkdir()
    for name, content in files.items():
        (model / "blobs" / name).write_text(content)
        (snapshot / name).symlink_to(model / "blobs" / name)
    return snapshot


def test_a_name_at_the_hub_is_found_where_it_was_fetched_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {"config.json": "{}", "tokenizer.json": "ab", "model.safetensors": "weights"}
    snapshot = _cache(monkeypatch, tmp_path / "hub", files)
    copied = folder(tmp_path / "copied", config_json="{}", tokenizer_json="ab")
    (copied / "model.safetensors").write_text("weights")

    found = locate_text_encoder(Path("some/encoder"))

    assert found == snapshot
    assert folder_digest(found) == folder_digest(copied)
    assert locate_text_encoder(copied) == copied


@pytest.mark.parametrize("files", [{}, {"config.json": "{}", "tokenizer.json": "ab"}], ids=["nothing", "no weights"])
def test_a_name_that_is_not_here_whole_and_cannot_be_fetched_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str]
) -> None:
    _cache(monkeypatch, tmp_path / "hub", files)

    with pytest.raises(ConfigurationError, match=r"hf download some/encoder --local-dir FOLDER"):
        locate_text_encoder(Path("some/encoder"))


@pytest.mark.parametrize("named", ["/srv/nowhere", "deep/er/encoder", "."])
def test_a_folder_that_is_none_is_refused_without_asking_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigurationError, match="expected a folder with"):
        locate_text_encoder(Path(named))
