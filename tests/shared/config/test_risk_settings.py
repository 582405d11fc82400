"""Settings of the risk tasks: the paper's values by default, and what a run's YAML must say."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from mammofed_shared.config.features import AsymmetryFeatures, MapFeatures, PooledFeatures, ReadsFeatures
from mammofed_shared.config.loading import load
from mammofed_shared.config.privacy import dp_sgd_obstacle, update_noise_obstacle
from mammofed_shared.config.risk import RiskAsymmiraiSettings, RiskMiraiSettings
from mammofed_shared.config.run import RunSettings
from mammofed_shared.errors import ConfigurationError

RUNS = Path(__file__).parents[3] / "configs/run"


def test_the_mirai_student_is_the_papers_by_default() -> None:
    settings = load(RUNS / "risk-mirai.yaml", RunSettings).task

    assert settings == RiskMiraiSettings(alpha=1.0)
    assert isinstance(settings, RiskMiraiSettings)
    assert (settings.width, settings.num_layers, settings.num_heads, settings.dropout) == (512, 3, 8, 0.25)
    assert settings.features == PooledFeatures()


def test_asymmirai_is_the_papers_by_default() -> None:
    settings = load(RUNS / "risk-asymmirai.yaml", RunSettings).task

    assert settings == RiskAsymmiraiSettings()
    assert (settings.optimizer.learning_rate, settings.batch_size) == (0.005, 30)
    assert isinstance(settings, ReadsFeatures)
    assert settings.features == AsymmetryFeatures(window=(6, 5), stride=(3, 3))


def test_the_windows_look_at_every_place_of_the_papers_map() -> None:
    settings = RiskAsymmiraiSettings()
    for size, window, stride in zip((48, 29), settings.window, settings.stride, strict=True):
        assert (size - window) % stride == 0 and stride <= window


def test_the_reference_order_reads_whole_maps() -> None:
    assert RiskAsymmiraiSettings(order="reference").features == MapFeatures()


def test_attention_heads_must_divide_the_width() -> None:
    with pytest.raises(ValidationError, match="must be a multiple of num_heads"):
        RiskMiraiSettings(width=20, num_heads=8)


def test_a_run_without_the_frozen_model_is_refused(tmp_path: Path) -> None:
    text = (RUNS / "risk-mirai.yaml").read_text(encoding="utf-8")
    (tmp_path / "run.yaml").write_text(text.replace("encoder: /srv", "# encoder: /srv"), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="encoder: missing"):
        load(tmp_path / "run.yaml", RunSettings)


def test_noise_on_updates_can_be_had_and_noise_on_each_patient_cannot() -> None:
    assert update_noise_obstacle(RiskMiraiSettings()) is None
    assert "update_noise works with task risk-asymmirai" in (dp_sgd_obstacle(RiskAsymmiraiSettings()) or "")
