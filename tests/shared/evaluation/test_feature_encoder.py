"""From pixels to features: each kind is what the frozen encoder gives, in the paper's order, for these very pixels."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from frozen_encoders import write_frozen_encoder
from mammofed_shared.config.features import (
    AsymmetryFeatures,
    FeatureKind,
    MapFeatures,
    PatchFeatures,
    PooledFeatures,
)
from mammofed_shared.data.features import Item, bilateral_pairs, item_key
from mammofed_shared.data.image_text import load_grey
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.errors import DataError, RefusalCode, VisitFailed
from mammofed_shared.evaluation.feature_encoder import FeatureEncoder, drawn_cells
from mammofed_shared.evaluation.frozen_encoder import load_frozen_image_encoder
from mammofed_shared.exam import Exam, View
from prepared import SMALL, prepare_dataset

CPU = torch.device("cpu")
PAIRS = AsymmetryFeatures(window=(2, 2))
MAP = (80, 4, 3)
"""Of mammofed_small_cnn for images of 64 × 40 pixels."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frozen_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def exams(tmp_path_factory: pytest.TempPathFactory) -> list[Exam]:
    folder = tmp_path_factory.mktemp("prepared")
    prepare_dataset(folder, seed=4, num_training=2, num_test=1)
    return read_exams([("one", folder)])


@pytest.fixture(scope="module")
def images(exams: list[Exam]) -> list[Item]:
    return [(image,) for exam in exams for image in exam.images]


@pytest.fixture(scope="module")
def maps(encoder: Path, images: list[Item]) -> torch.Tensor:
    """Of the images, by the encoder itself."""
    return maps_of(encoder, images)


def maps_of(encoder: Path, images: Sequence[Item]) -> torch.Tensor:
    frozen = load_frozen_image_encoder(encoder)
    return torch.cat([frozen.feature_map(torch.from_numpy(load_grey(item[0]))[None]) for item in images])


def features(encoder: Path, kind: FeatureKind, items: Sequence[Item]) -> NDArray[np.float16]:
    found = FeatureEncoder(encoder, kind, CPU)
    rows = found.encode(found.load(items))
    assert rows.dtype == np.float16 and rows.shape == (len(items), *found.row_shape)
    return rows


def test_maps_are_those_of_the_encoder_in_half_precision(encoder: Path, images: list[Item], maps: torch.Tensor) -> None:
    assert maps.shape[1:] == MAP and maps.std() > 0.01, "images differ"

    assert np.array_equal(features(encoder, MapFeatures(), images), maps.half().numpy())


def test_a_pooled_vector_is_the_encoders_own(encoder: Path, images: list[Item], maps: torch.Tensor) -> None:
    expected = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)

    assert np.array_equal(features(encoder, PooledFeatures(), images), expected.half().numpy())


def test_asymmetry_is_the_difference_of_right_and_left_then_the_maximum_of_each_window(
    encoder: Path, exams: list[Exam], images: list[Item], maps: torch.Tensor
) -> None:
    pairs = [pair for exam in exams for pair in bilateral_pairs(exam).values()]
    place = {item[0].image: number for number, item in enumerate(images)}
    differences = [(maps[place[right.image]] - maps[place[left.image]]).abs() for right, left in pairs]
    expected = np.array(
        [
            [[[d[c, r : r + 2, k : k + 2].max() for k in range(2)] for r in range(3)] for c in range(80)]
            for d in torch.stack(differences)
        ]
    )
    apart = AsymmetryFeatures(window=(2, 1), stride=(2, 2))

    assert len(pairs) == 2 * len(exams) and expected.shape == (len(pairs), 80, 3, 2)
    assert np.array_equal(features(encoder, PAIRS, pairs), expected.astype(np.float16))
    pooled_apart = F.max_pool2d(torch.stack(differences), (2, 1), (2, 2))
    assert pooled_apart.shape[2:] == (2, 2)
    assert np.array_equal(features(encoder, apart, pairs), pooled_apart.half().numpy())


def test_asymmetry_does_not_know_right_from_left(encoder: Path, exams: list[Exam]) -> None:
    right, left = bilateral_pairs(exams[0])[View.CC]

    found = features(encoder, PAIRS, [(right, left), (left, right), (left, left)])

    assert np.array_equal(found[0], found[1]) and found[0].any()
    assert not found[2].any(), "a breast does not differ from itself"


def test_patches_are_cells_of_the_map_that_show_breast(encoder: Path, images: list[Item], tmp_path: Path) -> None:
    grey = load_grey(images[0][0]).copy()
    grey[:, 26:] = 0  # the last column of cells, and a part of the one before it
    grey[:16] = 0
    content = cv2.imencode(".png", grey)[1].tobytes()
    (tmp_path / "cut.png").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    cut: Item = (replace(images[0][0], path=tmp_path / "cut.png", png_sha256=digest),)
    (feature_map,) = maps_of(encoder, [cut]).half().numpy()

    (patches,) = features(encoder, PatchFeatures(num_patches=6), [cut])

    expected = {tuple(feature_map[:, row, column].tolist()) for row in (1, 2, 3) for column in (0, 1)}
    assert {tuple(patch.tolist()) for patch in patches} == expected and len(expected) == 6


def test_cells_are_drawn_by_the_image_alone() -> None:
    grey = np.zeros((8, 6), np.uint8)
    grey[2:6, :3] = 1
    key, other = bytes(range(32)), bytes(range(1, 33))

    drawn = drawn_cells(grey, (4, 3), 3, key)

    assert set(drawn.tolist()) <= {3, 4, 6, 7} and len(set(drawn.tolist())) == 3
    assert drawn.tolist() == drawn_cells(grey, (4, 3), 3, key).tolist()
    many = {tuple(drawn_cells(grey, (4, 3), 3, bytes([n]) + other[1:]).tolist()) for n in range(20)}
    assert len(many) > 5
    assert sorted(set(drawn_cells(grey, (4, 3), 50, key).tolist())) == [3, 4, 6, 7], "with repetition where it must be"
    assert len(set(drawn_cells(grey * 0, (4, 3), 12, key).tolist())) == 12, "of a blank image any cell"


def test_no_bit_of_a_feature_hangs_on_what_else_is_encoded(encoder: Path, images: list[Item]) -> None:
    together = features(encoder, MapFeatures(), images)

    assert np.array_equal(together[3:5], features(encoder, MapFeatures(), images[3:5]))
    assert np.array_equal(together[3], features(encoder, MapFeatures(), [images[3]])[0])


def test_a_runs_precision_does_not_reach_the_features(encoder: Path, images: list[Item]) -> None:
    alone = features(encoder, PooledFeatures(), images)
    with torch.autocast("cpu", torch.bfloat16):
        within = features(encoder, PooledFeatures(), images)

    assert np.array_equal(alone, within)


def test_a_window_that_is_larger_than_the_map_is_refused(encoder: Path) -> None:
    with pytest.raises(VisitFailed, match="has 5 × 1 cells, the encoder's map 4 × 3") as caught:
        FeatureEncoder(encoder, AsymmetryFeatures(window=(5, 1)), CPU)
    assert caught.value.code is RefusalCode.SETTINGS


def test_pixels_that_are_not_those_of_the_table_are_refused(encoder: Path, images: list[Item], tmp_path: Path) -> None:
    found = FeatureEncoder(encoder, PooledFeatures(), CPU)
    (first,), (second,) = images[:2]
    for wrong in (replace(first, path=second.path), replace(first, path=tmp_path / "gone.png")):
        with pytest.raises(DataError, match="cannot be read, or is not the one that its table names"):
            found.load([(wrong,)])
    assert found.load([(first,)]).keys == [item_key((first,))]


def test_images_of_another_size_than_the_model_was_trained_on_are_refused(images: list[Item], tmp_path: Path) -> None:
    taller = {**SMALL.model_dump(), "height": 72}
    found = FeatureEncoder(write_frozen_encoder(tmp_path, preprocessing=taller), PooledFeatures(), CPU)

    with pytest.raises(DataError, match=r"expected \(72, 40\), as the frozen model was trained on, found \(64, 40\)"):
        found.load(images[:2])


def test_features_that_half_precision_cannot_hold_are_refused(encoder: Path, images: list[Item]) -> None:
    found = FeatureEncoder(encoder, MapFeatures(), CPU)
    loaded = found.load(images[:1])
    with torch.no_grad():
        for parameter in found._encoder.parameters():
            parameter.mul_(1e3)

    with pytest.raises(VisitFailed, match="fp16 cannot hold") as caught:
        found.encode(loaded)
    assert caught.value.code is RefusalCode.NOT_FINITE
