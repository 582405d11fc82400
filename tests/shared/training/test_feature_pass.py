"""Features once: computed before a task begins, taken up after a kill, within the quota, and equal either way."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from federation import make_plan
from frozen_encoders import write_frozen_encoder
from mammofed_shared.config.features import (
    AsymmetryFeatures,
    FeatureCacheSettings,
    FeatureKind,
    MapFeatures,
    PatchFeatures,
    PooledFeatures,
)
from mammofed_shared.config.frozen_encoder import encoder_digest
from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.data.feature_store import bytes_of, kept_bytes
from mammofed_shared.data.features import items_of
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.errors import DataError, RefusalCode, VisitFailed
from mammofed_shared.evaluation.feature_encoder import FeatureEncoder, LoadedItems
from mammofed_shared.exam import Exam, Split
from mammofed_shared.protocol.payload import reference_of
from mammofed_shared.protocol.plan import PayloadReference, Progress
from mammofed_shared.training import feature_pass
from mammofed_shared.training.evaluation_visit import evaluate_visit
from mammofed_shared.training.feature_pass import ITEMS_AT_ONCE, ensure_features, features_before, figures_of
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.probe import probe_visit
from mammofed_shared.training.probe_figures import FIGURES_FILE, ProbeFigures
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.tasks import TASK_CODE
from mammofed_shared.training.visit import VisitFiles, initial_state, train_visit
from prepared import SMALL, TEXT_ENCODER, prepare_dataset
from worker_groups import in_group

KINDS: tuple[FeatureKind, ...] = (
    PooledFeatures(),
    AsymmetryFeatures(window=(2, 2)),
    PatchFeatures(num_patches=3),
    MapFeatures(),
)
GROUP = WorkerGroup(Hardware(threads=1))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frozen_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    prepare_dataset(tmp_path / "prepared", seed=4, num_training=4, num_test=2)
    return tmp_path / "prepared"


@pytest.fixture
def data(prepared: Path, encoder: Path, tmp_path: Path) -> SiteData:
    return SiteData(
        read_exams([("one", prepared)]),
        ("one",),
        TEXT_ENCODER,
        least_cell=2,
        caches=tmp_path / "caches",
        encoder=encoder,
        preprocessing=SMALL.digest,
    )


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items each call of the encoder has had."""
    calls: list[int] = []
    encode = FeatureEncoder.encode

    def counted(self: FeatureEncoder, loaded: LoadedItems) -> NDArray[np.float16]:
        calls.append(len(loaded.keys))
        return encode(self, loaded)

    monkeypatch.setattr(FeatureEncoder, "encode", counted)
    return calls


def silent(done: int, total: int) -> None:
    """Nobody watches."""


def read(kind: FeatureKind, data: SiteData, exams: Sequence[Exam] | None = None) -> NDArray[np.float32]:
    return data.features(kind, CPU).read(items_of(kind, exams or data.exams))


def without_images(prepared: Path) -> None:
    for path in prepared.rglob("*.png"):
        path.unlink()


# ── once ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.slug)
def test_a_second_visit_reads_no_pixel(kind: FeatureKind, data: SiteData, prepared: Path, encoded: list[int]) -> None:
    ensure_features(kind, data, GROUP, silent)
    first = read(kind, data)
    assert sum(encoded) == len(first) == len(items_of(kind, data.exams)) > 10
    without_images(prepared)

    ensure_features(kind, data, GROUP, silent)

    assert np.array_equal(read(kind, data), first)
    assert sum(encoded) == len(first), "the encoder was not asked again"
    assert first.dtype == np.float32 and first.std() > 0


def test_images_that_came_since_are_all_that_a_later_visit_computes(data: SiteData, encoded: list[int]) -> None:
    before = replace(data, exams=data.exams[:4])
    ensure_features(PooledFeatures(), before, GROUP, silent)
    assert sum(encoded) == 16

    ensure_features(PooledFeatures(), data, GROUP, silent)

    assert sum(encoded) == 24
    assert len(read(PooledFeatures(), data)) == 24


def test_another_encoder_or_another_kind_is_computed_anew(data: SiteData, encoded: list[int], tmp_path: Path) -> None:
    other = replace(data, encoder=write_frozen_encoder(tmp_path / "other", seed=2))
    for number, (kind, site) in enumerate([(PooledFeatures(), data), (PooledFeatures(), other), (MapFeatures(), data)]):
        ensure_features(kind, site, GROUP, silent)
        assert sum(encoded) == 24 * (number + 1)

    assert not np.array_equal(read(PooledFeatures(), data), read(PooledFeatures(), other))
    ensure_features(PooledFeatures(), replace(data, preprocessing="0" * 64), GROUP, silent)
    assert sum(encoded) == 96, "images of other settings"


def test_progress_is_told_up_to_the_last_item(data: SiteData) -> None:
    told: list[tuple[int, int]] = []

    ensure_features(PooledFeatures(), data, GROUP, lambda done, total: told.append((done, total)))

    assert told == [(ITEMS_AT_ONCE, 24), (24, 24)]


# ── after a kill ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pass_that_was_cut_goes_on_and_ends_in_the_same_values(
    data: SiteData, encoded: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(feature_pass, "ITEMS_AT_ONCE", 4)

    def killed_after_twelve(done: int, total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_features(MapFeatures(), data, GROUP, killed_after_twelve)
    assert sum(encoded) == 12

    ensure_features(MapFeatures(), data, GROUP, silent)

    assert sum(encoded) == 24, "no item was computed twice"
    undisturbed = replace(data, caches=tmp_path / "undisturbed")
    ensure_features(MapFeatures(), undisturbed, GROUP, silent)
    assert np.array_equal(read(MapFeatures(), data), read(MapFeatures(), undisturbed))


def test_a_shard_that_was_damaged_is_computed_again(data: SiteData, encoded: list[int]) -> None:
    ensure_features(PooledFeatures(), data, GROUP, silent)
    expected = read(PooledFeatures(), data)
    assert data.caches is not None
    (shard,) = data.caches.rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1])

    ensure_features(PooledFeatures(), data, GROUP, silent)

    assert sum(encoded) == 48
    assert np.array_equal(read(PooledFeatures(), data), expected)


def test_an_image_that_cannot_be_read_does_not_stop_the_others(data: SiteData, prepared: Path) -> None:
    image = data.exams[1].images[2]
    image.path.write_bytes(b"no image")

    with pytest.raises(DataError, match="1 prepared images cannot be read, or are not those"):
        ensure_features(PooledFeatures(), data, GROUP, silent)

    others = [exam for exam in data.exams if exam is not data.exams[1]]
    assert len(read(PooledFeatures(), data, others)) == 20
    with pytest.raises(DataError, match="pooled features of 1 items were not computed: run `site-client features`"):
        read(PooledFeatures(), data)


# ── within the quota ────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_predicted_is_what_the_disk_holds(data: SiteData) -> None:
    found = figures_of(MapFeatures(), data, GROUP, data.exams)
    assert (found.row_shape, found.num_items, found.num_missing) == ((80, 4, 3), 24, 24)
    assert found.bytes_all == found.bytes_missing == bytes_of((80, 4, 3), 24)
    assert found.item_s > 0 and found.compute_s(2) == 12 * found.item_s
    assert data.caches is not None and not kept_bytes(data.caches), "nothing was computed to be kept"

    ensure_features(MapFeatures(), data, GROUP, silent)

    (size,) = kept_bytes(data.caches).values()
    assert found.bytes_all <= size <= 1.05 * found.bytes_all
    pooled = figures_of(PooledFeatures(), data, GROUP, data.exams)
    assert pooled.bytes_others == size
    after = figures_of(MapFeatures(), data, GROUP, data.exams)
    assert (after.num_missing, after.bytes_missing, after.bytes_others, after.item_s) == (0, 0, 0, 0.0)


def limited(data: SiteData, num_bytes: float, over_quota: str = "refuse") -> SiteData:
    settings = FeatureCacheSettings.model_validate({"quota_gb": num_bytes / 1e9, "over_quota": over_quota})
    return replace(data, feature_cache=settings)


def test_features_above_the_quota_are_refused_with_the_ways_out(data: SiteData, encoded: list[int]) -> None:
    needed = bytes_of((160,), 24)
    with pytest.raises(VisitFailed, match=r"set features\.over_quota to recompute") as caught:
        ensure_features(PooledFeatures(), limited(data, needed - 1), GROUP, silent)
    assert caught.value.code is RefusalCode.SETTINGS
    assert not encoded
    with pytest.raises(DataError, match="were not computed"):
        read(PooledFeatures(), limited(data, needed - 1))

    ensure_features(PooledFeatures(), limited(data, needed), GROUP, silent)
    assert sum(encoded) == 24
    with pytest.raises(VisitFailed, match=r", 9\.\d+e-06 GB of others are kept"):
        ensure_features(MapFeatures(), limited(data, bytes_of((80, 4, 3), 24)), GROUP, silent)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.slug)
def test_features_that_are_computed_anew_are_those_that_would_have_been_kept(
    kind: FeatureKind, data: SiteData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ensure_features(kind, data, GROUP, silent)
    anew = limited(replace(data, caches=tmp_path / "full"), 10, "recompute")

    ensure_features(kind, anew, GROUP, silent)

    assert f"{kind.slug} features take" in caplog.text and "anew whenever they are read" in caplog.text
    assert not kept_bytes(tmp_path / "full")
    assert np.array_equal(read(kind, anew), read(kind, data))
    assert anew.features(kind, CPU).row_shape == data.features(kind, CPU).row_shape


def test_a_site_that_keeps_nothing_computes_whatever_is_read(data: SiteData) -> None:
    bare = replace(data, caches=None)
    ensure_features(PooledFeatures(), bare, GROUP, silent)
    ensure_features(PooledFeatures(), data, GROUP, silent)

    assert np.array_equal(read(PooledFeatures(), bare), read(PooledFeatures(), data))


def test_a_probe_reads_zeros_for_what_is_not_kept(data: SiteData, encoded: list[int]) -> None:
    ensure_features(PooledFeatures(), data, GROUP, silent, data.exams[:1])
    found = read(PooledFeatures(), replace(data, is_probe=True))

    assert sum(encoded) == 4
    assert found[:4].any(axis=1).all() and not found[4:].any()


# ── in a visit ──────────────────────────────────────────────────────────────────────────────────────────────────


class ReadingSettings(PretrainSettings):
    """Of a task that reads features of a frozen model."""

    encoder_features: int = 160
    features: FeatureKind = PooledFeatures()


SMALL_TASK = {
    "image_encoder": {"name": "mammofed_small_cnn", "weights": "none", "activation_checkpointing": False},
    "text_encoder": {"weights": "none", "max_tokens": 32, "activation_checkpointing": False},
    "projection_dim": 16,
    "batch_size": 4,
    "precision": "fp32",
}


def test_a_visit_computes_what_its_task_reads_and_tells_how_far_it_is(
    data: SiteData, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Progress] = []
    features_before(PretrainSettings(), data, GROUP, told.append)
    assert not encoded and not told, "a task that reads pixels"

    def of_training(settings: object, exams: Sequence[Exam]) -> Sequence[Exam]:
        return [exam for exam in exams if exam.split is Split.TRAIN]

    choosing = replace(TASK_CODE["pretrain"], feature_exams=of_training)
    monkeypatch.setitem(TASK_CODE, "pretrain", choosing)  # type: ignore[index]  # it is a dict
    features_before(ReadingSettings(), data, GROUP, told.append)

    assert sum(encoded) == 16, "of the four training exams"
    assert told[-1] == Progress(step=16, num_steps=16)


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_every_visit_with_a_model_begins_with_its_features(kind: str, data: SiteData, tmp_path: Path) -> None:
    task = ReadingSettings.model_validate(SMALL_TASK)
    state, out = tmp_path / "state", tmp_path / "out"
    initial_state(task, text_encoder=TEXT_ENCODER, seed=1, out=state)
    models = {"text_encoder": folder_digest(TEXT_ENCODER), "encoder": encoder_digest(data.encoder_folder)}
    asked = make_plan(reference_of(state), kind=kind)
    plan = asked.model_copy(update={"task": task, "preprocessing": SMALL.digest, **models})
    files = VisitFiles(state, None, out, kept=out, checkpoint_every_s=600)
    told: list[Progress] = []

    visit = train_visit if kind == "train" else evaluate_visit
    visit(plan, files, data, Hardware(threads=1), told.append)

    assert [(item.step, item.num_steps) for item in told[:2]] == [(16, 24), (24, 24)]
    assert len(told) > 2 and read(PooledFeatures(), data).any()
    with pytest.raises(VisitFailed, match="frozen model: expected files of digest") as caught:
        visit(plan.model_copy(update={"encoder": "1" * 64}), files, data, Hardware(threads=1), told.append)
    assert caught.value.code is RefusalCode.ENCODER_MISMATCH


def test_a_probe_tells_what_the_features_take_and_computes_none_to_keep(data: SiteData, tmp_path: Path) -> None:
    models = {"text_encoder": folder_digest(TEXT_ENCODER), "encoder": encoder_digest(data.encoder_folder)}
    reading = {"task": ReadingSettings.model_validate(SMALL_TASK), "preprocessing": SMALL.digest}
    plan = make_plan(PayloadReference(digest="0" * 64, size=0)).model_copy(update=reading | models)
    out, probed = tmp_path / "out", replace(data, is_probe=True)

    probe_visit(plan, out, tmp_path, probed, Hardware(threads=1), lambda progress: None, began_s=0.0)

    found = ProbeFigures.model_validate_json((out / FIGURES_FILE).read_text()).features
    assert found is not None and (found.num_items, found.num_missing, found.row_shape) == (24, 24, (160,))
    assert found.item_s > 0
    assert data.caches is not None and not kept_bytes(data.caches)


def test_two_processes_share_the_work_and_find_all_of_it(data: SiteData, tmp_path: Path) -> None:
    parts = in_group(Hardware(num_processes=2, distribution="ddp", threads=1), tmp_path, "features", data)

    assert [part["computed"] for part in parts] == [12, 12]
    assert data.caches is not None
    assert sorted(path.name[:2] for path in data.caches.rglob("*.safetensors")) == ["00", "01"]
    alone = replace(data, caches=tmp_path / "alone")
    ensure_features(PooledFeatures(), alone, GROUP, silent)
    for part in parts:
        assert np.array_equal(part["read"], read(PooledFeatures(), alone))
