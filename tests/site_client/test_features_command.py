"""`site-client features`: what it tells, what it computes in a real worker group, and when it refuses."""

import json
from io import StringIO
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from bare_site import bare_site
from frozen_encoders import write_frozen_encoder
from mammofed_shared.config.features import FeatureCacheSettings, PooledFeatures
from mammofed_shared.config.frozen_encoder import encoder_digest
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.config.site import SiteSettings, WorkerSettings
from mammofed_shared.data.feature_store import FeatureIdentity, FeatureStore
from mammofed_shared.errors import ConfigurationError, DataError
from mammofed_site.features_command import features_site
from prepared import SMALL, site_settings
from runs import small_run_settings


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frozen_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def settings(tmp_path: Path, encoder: Path) -> SiteSettings:
    return site_settings(tmp_path / "site", "mayo", seed=1).model_copy(update={"encoder": encoder})


def _said(settings: SiteSettings, kind: str | None, *, predict: bool = False, run: Path | None = None) -> str:
    told = StringIO()
    features_site(settings, kind, run, Console(file=told, width=200), predict=predict)
    return told.getvalue()


def _kept(settings: SiteSettings) -> int:
    assert settings.encoder is not None
    digest = encoder_digest(settings.encoder)
    identity = FeatureIdentity(encoder=digest, preprocessing=SMALL.digest, kind=PooledFeatures())
    return len(FeatureStore(settings.folder / "caches", identity))


def test_features_are_told_then_computed_once_by_the_sites_worker_group(settings: SiteSettings) -> None:
    worker = WorkerSettings(device="cpu", threads=1, processes=2, distribution="ddp")
    settings = settings.model_copy(update={"worker": worker})
    predicted = _said(settings, "pooled", predict=True)
    assert "pooled: 160 values of an image" in predicted and "0 of 56" in predicted
    assert "2.02e-05 GB in about" in predicted
    assert _kept(settings) == 0

    assert "56 computed and kept" in _said(settings, "pooled")

    assert _kept(settings) == 56
    files = sorted(path.name for path in settings.folder.rglob("0?-*.safetensors"))
    assert files == ["00-00000.safetensors", "01-00000.safetensors"], "two processes shared the work"
    for path in settings.folder.rglob("*.png"):
        path.unlink()
    again = _said(settings, "pooled")
    assert "56 of 56" in again and "nothing" in again and "computed" not in again
    assert not (settings.folder / "feature-pass").exists()
    other = settings.model_copy(update={"encoder": write_frozen_encoder(settings.folder / "other", seed=2)})
    with pytest.raises(DataError, match=r"features were not computed \(NO_DATA\): .*worker\.log says why"):
        _said(other, "pooled", predict=True)


def test_what_is_kept_of_another_model_is_named(settings: SiteSettings, tmp_path: Path) -> None:
    _said(settings, "pooled")
    other = settings.model_copy(update={"encoder": write_frozen_encoder(tmp_path / "other", seed=2)})

    assert "not of the model that `encoder` names: no run with it needs this" in _said(other, "maps", predict=True)
    assert "no run with it needs this" not in _said(settings, "maps", predict=True)


def test_above_the_quota_nothing_is_computed_and_the_ways_out_are_told(settings: SiteSettings) -> None:
    small = settings.model_copy(update={"features": FeatureCacheSettings(quota_gb=1e-6)})
    with pytest.raises(ConfigurationError, match=r"features\.quota_gb is 1e-06\. Raise features\.quota_gb; or remove"):
        _said(small, "pooled")
    anew = FeatureCacheSettings(quota_gb=1e-6, over_quota="recompute")

    said = _said(settings.model_copy(update={"features": anew}), "pooled")

    assert "nothing is kept, each epoch computes them anew" in said
    assert _kept(settings) == 0


def test_a_window_that_the_map_has_no_room_for_is_refused(settings: SiteSettings) -> None:
    with pytest.raises(ConfigurationError, match=r"features were not computed \(SETTINGS\): .*worker\.log says why"):
        _said(settings, "asymmetry-9x9-1x1", predict=True)
    assert "has 9 × 9 cells, the encoder's map 4 × 3" in (settings.folder / "worker.log").read_text()


def test_images_of_other_settings_than_the_sites_yaml_are_refused(settings: SiteSettings) -> None:
    other = settings.model_copy(update={"preprocessing": PreprocessingSettings(height=65, width=40)})
    with pytest.raises(DataError, match="PREPROCESSING_MISMATCH"):
        _said(other, "pooled", predict=True)


def test_what_cannot_be_asked_is_said_with_the_key(tmp_path: Path, encoder: Path) -> None:
    bare = bare_site(tmp_path / "site")
    with pytest.raises(ConfigurationError, match="encoder: missing; name the folder of the frozen model"):
        _said(bare, "pooled")
    site = bare.model_copy(update={"encoder": encoder})
    with pytest.raises(ConfigurationError, match="--kind: expected pooled, maps, patches-N or asymmetry-AxB-CxD"):
        _said(site, "pool")
    with pytest.raises(ConfigurationError, match="no plan has come to this site yet: give the lead's file with --run"):
        _said(site, None)
    run = tmp_path / "run.yaml"
    run.write_text(yaml.safe_dump(json.loads(small_run_settings(tmp_path).model_dump_json())))
    with pytest.raises(ConfigurationError, match="the task 'pretrain' reads pixels: there are no features to compute"):
        _said(site, None, run=run)
