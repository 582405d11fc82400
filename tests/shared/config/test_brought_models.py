"""Which models a run names for its task, and the folder of a frozen one: whole, described, and known by its digest."""

import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from frozen_encoders import write_frozen_encoder
from mammofed_shared.config.brought_models import with_located_models
from mammofed_shared.config.features import AsymmetryFeatures, MapFeatures, PatchFeatures, PooledFeatures
from mammofed_shared.config.frozen_encoder import encoder_digest, read_encoder
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.site import DatasetSettings, SiteSettings
from mammofed_shared.errors import ConfigurationError
from prepared import SMALL, TEXT_ENCODER
from runs import small_run_settings


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frozen_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def copied(encoder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(encoder, tmp_path / "copied"))


def on_a_frozen_model(folder: Path, encoder: str | None, **replaced: object) -> RunSettings:
    return small_run_settings(
        folder, **{"task": {"name": "risk-mirai"}, "text_encoder": None} | replaced, encoder=encoder
    )


def test_a_run_names_the_models_of_its_task_and_no_other(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="text_encoder: missing; the task 'pretrain' needs its folder"):
        small_run_settings(tmp_path, text_encoder=None)
    with pytest.raises(ValidationError, match="encoder: the task 'pretrain' uses none; leave it out"):
        small_run_settings(tmp_path, encoder="frozen")
    with pytest.raises(ValidationError, match="encoder: missing; the task 'risk-mirai' needs its folder"):
        on_a_frozen_model(tmp_path, None)
    with pytest.raises(ValidationError, match="text_encoder: the task 'risk-mirai' uses none; leave it out"):
        on_a_frozen_model(tmp_path, "frozen", text_encoder="text")

    assert on_a_frozen_model(tmp_path, "frozen").encoder == Path("frozen")


def test_where_a_model_lies_does_not_change_a_runs_configuration(tmp_path: Path) -> None:
    here, there = (on_a_frozen_model(tmp_path, encoder) for encoder in ("here", "there"))
    other = on_a_frozen_model(tmp_path, "here", seed=5)

    assert here.digest == there.digest != other.digest
    texts = [small_run_settings(tmp_path, text_encoder=folder) for folder in ("here", "there")]
    assert texts[0].digest == texts[1].digest != here.digest


def test_a_frozen_model_says_what_it_is(encoder: Path, tmp_path: Path) -> None:
    found = read_encoder(encoder)
    averaged = read_encoder(write_frozen_encoder(tmp_path, pooling="avg"))

    assert found.task.image_encoder.name == "mammofed_small_cnn"
    assert found.preprocessing == SMALL
    assert (found.num_features, found.num_channels) == (160, 80), "mean, then maximum"
    assert (averaged.num_features, averaged.num_channels) == (80, 80)
    kinds = (PooledFeatures(), AsymmetryFeatures(window=(2, 2)), PatchFeatures(num_patches=4), MapFeatures())
    assert [found.width_of(kind) for kind in kinds] == [160, 80, 80, 80]


@pytest.mark.parametrize(
    "name",
    [
        "image_encoder/config.json",
        "image_encoder/model.safetensors",
        "text_encoder/tokenizer.json",
        "text_encoder/model.safetensors",
        "projections.safetensors",
        "manifest.json",
    ],
)
def test_the_digest_sees_every_file_that_decides_a_feature(copied: Path, encoder: Path, name: str) -> None:
    assert encoder_digest(copied) == encoder_digest(encoder), "of a copy"
    content = (copied / name).read_bytes()
    is_weights = name.endswith(".safetensors")  # of which one value changes
    (copied / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if is_weights else content + b" ")

    assert encoder_digest(copied) != encoder_digest(encoder)


def test_what_a_reader_adds_to_an_export_does_not_change_its_digest(copied: Path, encoder: Path) -> None:
    (copied / "README.md").write_text("our notes")
    (copied / "provenance").mkdir(exist_ok=True)
    (copied / "provenance" / "ledger.jsonl").write_text("{}")

    assert encoder_digest(copied) == encoder_digest(encoder)


@pytest.mark.parametrize("name", ["image_encoder/model.safetensors", "manifest.json", "projections.safetensors"])
def test_a_folder_that_is_not_whole_is_refused_with_what_is_missing(copied: Path, name: str) -> None:
    (copied / name).unlink()
    site = SiteSettings(
        site="mayo",
        consortium="hospitals",
        server="127.0.0.1:1",
        folder=copied.parent / "site",
        identity=copied.parent / "identity",
        datasets=(DatasetSettings(name="screening"),),
        text_encoder=TEXT_ENCODER,
        encoder=copied,
    )

    with pytest.raises(ConfigurationError, match=f"{name} missing. `fl-server export` of the pretraining run writes"):
        with_located_models(site)


def test_a_manifest_of_another_kind_of_run_is_refused(copied: Path) -> None:
    manifest = (copied / "manifest.json").read_text()
    assert '"name": "pretrain"' in manifest or '"name":"pretrain"' in manifest
    (copied / "manifest.json").write_text(manifest.replace('"pretrain"', '"text"', 1))

    with pytest.raises(ConfigurationError, match="expected a pretrained model at"):
        read_encoder(copied)
