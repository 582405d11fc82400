"""Kept features: few files, found by the pixels, taken up where a pass was killed, and never read when damaged."""

import hashlib
import stat
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mammofed_shared.config.features import FeatureKind, MapFeatures, PatchFeatures, PooledFeatures
from mammofed_shared.data import feature_store
from mammofed_shared.data.feature_store import FeatureIdentity, FeatureStore, FeatureWriter, bytes_of, kept_bytes
from mammofed_shared.errors import RefusalCode, VisitFailed

SHAPE = (3, 2)


def identity(encoder: str = "a", preprocessing: str = "b", kind: FeatureKind | None = None) -> FeatureIdentity:
    return FeatureIdentity(encoder=encoder * 64, preprocessing=preprocessing * 64, kind=kind or PooledFeatures())


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def row(number: int) -> NDArray[np.float16]:
    return np.random.default_rng(number).normal(size=SHAPE).astype(np.float16)


def fill(caches: Path, numbers: range, process: int = 0) -> None:
    with FeatureWriter(FeatureStore(caches, identity()), SHAPE, process) as writer:
        for number in numbers:
            writer.add(key(number), row(number))


def shards(caches: Path) -> list[str]:
    return sorted(path.name for path in caches.rglob("*.safetensors"))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rows a shard."""
    monkeypatch.setattr(feature_store, "SHARD_BYTES", bytes_of(SHAPE, 4))


def test_rows_are_found_by_their_keys_in_any_order_and_read_in_float32(tmp_path: Path) -> None:
    fill(tmp_path, range(100))
    store = FeatureStore(tmp_path, identity())
    wanted = [7, 99, 0, 7]

    found = store.read(store.places([key(number) for number in wanted]))

    assert (len(store), store.row_shape) == (100, SHAPE)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.stack([row(number) for number in wanted]).astype(np.float32))
    assert store.places([key(100), key(5), key(-1)]).tolist().count(-1) == 2


def test_a_store_that_is_empty_finds_nothing(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, identity())

    assert (len(store), store.row_shape) == (0, None)
    assert store.places([key(1)]).tolist() == [-1]
    assert store.places([]).tolist() == []


@pytest.mark.usefixtures("small_shards")
def test_many_rows_are_in_few_files_of_the_predicted_size(tmp_path: Path) -> None:
    fill(tmp_path, range(10))

    assert shards(tmp_path) == ["00-00000.safetensors", "00-00001.safetensors", "00-00002.safetensors"]
    (size,) = kept_bytes(tmp_path).values()
    assert bytes_of(SHAPE, 10) <= size <= bytes_of(SHAPE, 10) + 4 * 512, "headers, and about.json"


@pytest.mark.usefixtures("small_shards")
def test_a_later_pass_takes_up_the_last_shard(tmp_path: Path) -> None:
    for start, stop in ((0, 3), (3, 6), (6, 8), (8, 9)):
        fill(tmp_path, range(start, stop))

    store = FeatureStore(tmp_path, identity())
    assert len(shards(tmp_path)) == 3, "of four, four and one rows"
    assert np.array_equal(store.read(store.places([key(number) for number in range(9)]))[5], row(5))


def test_rows_are_safe_before_a_shard_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "FLUSH_EVERY_S", 0.0)
    writer = FeatureWriter(FeatureStore(tmp_path, identity()), SHAPE)
    writer.add(key(1), row(1))
    writer.add(key(2), row(2))

    assert len(FeatureStore(tmp_path, identity())) == 2, "though nobody has ended the writer"


def test_an_error_in_the_midst_keeps_what_was_added(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), FeatureWriter(FeatureStore(tmp_path, identity()), SHAPE) as writer:
        writer.add(key(1), row(1))
        raise RuntimeError

    assert len(FeatureStore(tmp_path, identity())) == 1


def test_processes_write_shards_of_their_own(tmp_path: Path) -> None:
    fill(tmp_path, range(3), process=0)
    fill(tmp_path, range(3, 5), process=1)

    assert shards(tmp_path) == ["00-00000.safetensors", "01-00000.safetensors"]
    assert len(FeatureStore(tmp_path, identity())) == 5


def test_features_of_another_encoder_preprocessing_or_kind_are_others(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    others = [
        identity(encoder="c"),
        identity(preprocessing="c"),
        identity(kind=MapFeatures()),
        identity(kind=PatchFeatures(num_patches=2)),
        identity(kind=PatchFeatures(num_patches=3)),
    ]

    assert len(FeatureStore(tmp_path, identity())) == 3
    assert [len(FeatureStore(tmp_path, other)) for other in others] == [0] * 5
    assert len({other.folder_name for other in [identity(), *others]}) == 6


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("cut", ["half", "empty", "strange"])
def test_a_damaged_shard_is_removed_and_the_others_serve(
    tmp_path: Path, cut: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, range(10))
    (damaged,) = tmp_path.rglob("00-00001.safetensors")
    content = damaged.read_bytes()
    damaged.write_bytes({"half": content[: len(content) // 2], "empty": b"", "strange": b"\0" * 100}[cut])

    store = FeatureStore(tmp_path, identity())

    assert "00-00001.safetensors of the kept features is damaged" in caplog.text
    assert not damaged.exists()
    places = store.places([key(number) for number in range(10)])
    assert np.flatnonzero(places < 0).tolist() == [4, 5, 6, 7]
    fill(tmp_path, range(4, 8))
    again = FeatureStore(tmp_path, identity())
    assert len(again) == 10
    assert np.array_equal(again.read(again.places([key(4)]))[0], row(4))


def test_a_row_that_its_disk_has_changed_is_never_read(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    (shard,) = tmp_path.rglob("*.safetensors")
    content = bytearray(shard.read_bytes())
    place = bytes(content).index(row(1).tobytes())
    content[place] ^= 1
    shard.write_bytes(content)
    store = FeatureStore(tmp_path, identity())

    assert np.array_equal(store.read(store.places([key(2)]))[0], row(2))
    with pytest.raises(
        VisitFailed, match=r"00-00000\.safetensors of the kept features is not what was written"
    ) as caught:
        store.read(store.places([key(1)]))
    assert caught.value.code is RefusalCode.WORKER_DIED, "the one that a site tries again after"
    assert not shard.exists()


@pytest.mark.usefixtures("small_shards")
def test_more_shards_than_may_be_open_are_read_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "_MOST_OPEN", 2)
    fill(tmp_path, range(20))
    store = FeatureStore(tmp_path, identity())
    order = [0, 19, 4, 1, 8, 18, 12, 3]

    found = store.read(store.places([key(number) for number in order]))

    assert np.array_equal(found, np.stack([row(number) for number in order]).astype(np.float32))
    assert len(store._open) == 2


def test_only_its_owner_can_read_the_folder(tmp_path: Path) -> None:
    fill(tmp_path, range(1))
    (folder,) = (tmp_path / "features").iterdir()

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
