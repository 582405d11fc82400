"""What is computed from a probe's figures, what is warned of, and how a prediction is kept."""

import logging
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bare_site import bare_site
from fake_workers import FIGURES
from federation import make_plan
from mammofed_shared.config.features import FeatureCacheSettings, PooledFeatures
from mammofed_shared.config.site import SiteSettings, WorkerSettings
from mammofed_shared.protocol.plan import PayloadReference, Plan
from mammofed_shared.training.feature_figures import FeatureFigures
from mammofed_shared.training.probe_figures import ProbeFigures
from mammofed_site.forecast import Forecast, forecast, forecast_table, predict
from mammofed_site.prediction import (
    Outcome,
    Prediction,
    compare_with_prediction,
    in_words,
    keep_prediction,
    last_outcome,
)

PLENTY = 10**12


@pytest.fixture
def settings(tmp_path: Path) -> SiteSettings:
    return bare_site(tmp_path / "site")


@pytest.fixture
def plan() -> Plan:
    return make_plan(PayloadReference(digest="0" * 64, size=1)).model_copy(update={"epochs": 3})


def _forecast(figures: ProbeFigures, plan: Plan, settings: SiteSettings, disk_free: int = PLENTY) -> Forecast:
    return forecast(figures, predict(figures, plan, settings), plan, settings, disk_free=disk_free, last=None)


def _with_worker(settings: SiteSettings, **worker: object) -> SiteSettings:
    return settings.model_copy(update={"worker": WorkerSettings.model_validate(worker)})


def test_a_visit_takes_its_start_its_validations_its_steps_and_its_checkpoints(
    settings: SiteSettings, plan: Plan
) -> None:
    figures = FIGURES.model_copy(update={"step_s": (1.0, *(2.0,) * 8, 3.0)})
    never = predict(figures, plan, _with_worker(settings, checkpoint_every_min=1e9))
    assert never.once_s == 5 + 10 + 4 + 2 * 20 + 1
    assert never.visit_s(3) == pytest.approx(never.once_s + 3 * 100 * 2)
    low_s, high_s = never.range_s(3)
    assert (low_s, high_s) == (pytest.approx(never.once_s + 300 * 1.9), pytest.approx(never.once_s + 300 * 2.1))
    after_each_step = predict(figures, plan, _with_worker(settings, checkpoint_every_min=0))
    assert after_each_step.epoch_s == pytest.approx(100 * (2 + 1))
    each_minute = predict(figures, plan, _with_worker(settings, checkpoint_every_min=1))
    assert each_minute.epoch_s == pytest.approx(200 * (1 + 1 / 60))


def test_what_fits_and_keeps_up_is_not_warned_of(settings: SiteSettings, plan: Plan) -> None:
    found = _forecast(FIGURES, plan, settings)
    assert found.warnings == ()
    assert (found.samples_per_s, found.data_wait) == (8.0, 0.01)
    assert found.disk_gb == pytest.approx(2 * (1 + 2 + 3))


@pytest.mark.parametrize(
    ("change", "disk_free", "words"),
    [
        ({"wait_s": 4.0}, PLENTY, ["wait for data 20 % of the time: raise worker.loaders, now 2"]),
        ({"peak_memory_gb": (15.0,)}, PLENTY, ["15.0 of 16.0 GB", "worker.micro_batch to 8"]),
        ({"peak_memory_gb": (8.0, 8.0)}, PLENTY, ["16.0 of 16.0 GB"]),
        ({"peak_memory_gb": (15.0, 1.0), "is_gpu": True}, PLENTY, ["15.0 of 16.0 GB"]),
        ({"micro_batch": 2}, PLENTY, ["16 samples at once: each process computes 2"]),
        ({}, 10**9, ["needs 12.0 GB, 1.0 GB are free"]),
    ],
)
def test_what_will_not_fit_or_keep_up_is_warned_of_with_what_to_do(
    settings: SiteSettings, plan: Plan, change: dict[str, object], disk_free: int, words: list[str]
) -> None:
    warnings = _forecast(FIGURES.model_copy(update=change), plan, settings, disk_free).warnings
    assert len(warnings) == 1
    assert all(word in warnings[0] for word in words)


FEATURES = FeatureFigures(
    kind=PooledFeatures(),
    row_shape=(2048,),
    num_items=1000,
    num_missing=600,
    item_s=0.5,
    bytes_all=4 * 10**9,
    bytes_missing=2 * 10**9,
    bytes_others=10**9,
)


def _with_features(settings: SiteSettings, **features: object) -> SiteSettings:
    return settings.model_copy(update={"features": FeatureCacheSettings.model_validate(features)})


def test_features_that_are_not_kept_are_part_of_the_next_visit(settings: SiteSettings, plan: Plan) -> None:
    figures, pixels = FIGURES.model_copy(update={"features": FEATURES}), predict(FIGURES, plan, settings)
    two = _with_worker(settings, processes=2, distribution="ddp")

    found = _forecast(figures, plan, settings)

    assert predict(figures, plan, settings).once_s == pixels.once_s + 600 * 0.5
    assert predict(figures, plan, two).once_s == pixels.once_s + 300 * 0.5, "each process computes its share"
    assert predict(figures, plan, settings).epoch_s == pixels.epoch_s
    assert found.warnings == () and found.disk_gb == pytest.approx(2 * (1 + 2 + 3) + 2)
    told = StringIO()
    Console(file=told, width=200).print(forecast_table(found))
    assert "pooled: 600 of 1000 to compute once, 2 GB, 5.0 min: with the next visit" in told.getvalue()
    kept = figures.model_copy(update={"features": FEATURES.model_copy(update={"num_missing": 0})})
    assert predict(kept, plan, settings).once_s == pixels.once_s


def test_features_above_the_quota_are_warned_of_before_a_visit_is_refused(settings: SiteSettings, plan: Plan) -> None:
    figures, pixels = FIGURES.model_copy(update={"features": FEATURES}), predict(FIGURES, plan, settings)

    (refused,) = _forecast(figures, plan, _with_features(settings, quota_gb=4.9)).warnings
    (anew,) = _forecast(figures, plan, _with_features(settings, quota_gb=4.9, over_quota="recompute")).warnings

    assert (
        "pooled features take 4 GB, 1 GB of others are kept, and features.quota_gb is 4.9: the visit would be"
        in refused
    )
    assert "set features.over_quota to recompute" in refused
    assert "each epoch computes them anew" in anew
    predicted = predict(figures, plan, _with_features(settings, quota_gb=4.9, over_quota="recompute"))
    assert (predicted.once_s, predicted.epoch_s) == (pixels.once_s, pytest.approx(pixels.epoch_s + 300))
    assert _forecast(figures, plan, _with_features(settings, quota_gb=5.0)).warnings == ()


def test_gpus_need_not_share_their_memory(settings: SiteSettings, plan: Plan) -> None:
    found = _forecast(FIGURES.model_copy(update={"peak_memory_gb": (9.0, 8.0), "is_gpu": True}), plan, settings)
    assert found.peak_memory_gb == 9.0 and found.warnings == ()


def test_the_table_tells_hardware_hours_and_the_last_visit(settings: SiteSettings, plan: Plan) -> None:
    found = _forecast(FIGURES, plan, settings).model_copy(
        update={"last_visit": Outcome(predicted_s=11520, took_s=12240)}
    )
    written = StringIO()
    Console(file=written, width=120).print(forecast_table(found))
    for words in ("CPU, bf16", "at most 16 at once", "2.0 of 16.0 GB", "100 steps", "for 3 epochs", "(+6 %)"):
        assert words in written.getvalue()


def test_durations_are_told_in_the_unit_that_is_best_read() -> None:
    assert [in_words(seconds) for seconds in (0.0313, 42, 90, 11520)] == ["0.031 s", "42 s", "1.5 min", "3.2 h"]


PREDICTION = Prediction(once_s=20, epoch_s=60, quick_epoch_s=50, slow_epoch_s=80)


def test_the_error_of_a_visit_is_logged_and_outlives_the_next_prediction(
    settings: SiteSettings, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    keep_prediction(settings, plan, PREDICTION)
    with caplog.at_level(logging.INFO):
        compare_with_prediction(settings, plan, 212.0)
    assert f"task {plan.task_id}: predicted 3.3 min, took 3.5 min (+6 %)" in caplog.text
    keep_prediction(settings, plan, PREDICTION)
    assert last_outcome(settings, plan) == Outcome(predicted_s=200.0, took_s=212.0)


def test_a_visit_of_other_settings_is_compared_with_nothing(
    settings: SiteSettings, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    keep_prediction(settings, plan, PREDICTION)
    other = plan.model_copy(update={"task": plan.task.model_copy(update={"batch_size": 8})})
    with caplog.at_level(logging.INFO):
        compare_with_prediction(settings, other, 212.0)
        compare_with_prediction(_with_worker(settings, loaders=8), plan, 212.0)
    assert not caplog.text and last_outcome(settings, other) is None


def test_a_file_of_another_version_counts_as_none(settings: SiteSettings, plan: Plan) -> None:
    (settings.folder / "prediction.json").write_text('{"of": "another version"}')
    compare_with_prediction(settings, plan, 212.0)
    assert last_outcome(settings, plan) is None
    keep_prediction(settings, plan, PREDICTION)
    compare_with_prediction(settings, plan, 212.0)
    assert last_outcome(settings, plan) is not None
