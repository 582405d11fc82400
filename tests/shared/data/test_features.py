"""Items of exams: which images and pairs have features, and by what they are known."""

from dataclasses import replace
from pathlib import Path

import pytest

from mammofed_shared.config.features import (
    AsymmetryFeatures,
    MapFeatures,
    PatchFeatures,
    PooledFeatures,
    kind_named,
)
from mammofed_shared.data.features import bilateral_pairs, item_key, items_of, views_of
from mammofed_shared.errors import DataError
from mammofed_shared.exam import Exam, Image, Laterality, Split, View

PAIRS = AsymmetryFeatures(window=(2, 2))


def image(name: str, laterality: str, view: str, digest: str) -> Image:
    return Image(name, Laterality(laterality), View(view), Path("nowhere"), "other", digest * 64)


def exam(*images: Image) -> Exam:
    return Exam("e", "p", "one", Split.TRAIN, None, images)


LCC, RCC = image("a", "L", "CC", "1"), image("b", "R", "CC", "2")
LMLO, AGAIN = image("c", "L", "MLO", "3"), image("d", "R", "CC", "4")


def test_of_a_repeated_view_the_first_image_counts_and_a_missing_one_is_absent() -> None:
    found = views_of(exam(LCC, RCC, LMLO, AGAIN))

    assert found == {
        (Laterality.L, View.CC): LCC,
        (Laterality.R, View.CC): RCC,
        (Laterality.L, View.MLO): LMLO,
    }


def test_a_pair_is_right_and_left_of_a_view_that_was_taken_of_both() -> None:
    assert bilateral_pairs(exam(LCC, RCC, LMLO)) == {View.CC: (RCC, LCC)}
    assert bilateral_pairs(exam(LCC, LMLO)) == {}


def test_every_image_is_an_item_but_of_asymmetry_the_pairs_are() -> None:
    exams = [exam(LCC, RCC, LMLO, AGAIN), exam(LMLO)]

    for kind in (PooledFeatures(), MapFeatures(), PatchFeatures(num_patches=2)):
        assert items_of(kind, exams) == [(LCC,), (RCC,), (LMLO,), (AGAIN,)], "the same pixels twice are one item"
    assert items_of(PAIRS, exams) == [(RCC, LCC)]


def test_an_item_is_known_by_its_pixels_and_a_pair_by_its_order_too() -> None:
    assert item_key((LCC,)) == bytes.fromhex("1" * 64)
    assert item_key((LCC,)) == item_key((replace(RCC, png_sha256=LCC.png_sha256),))
    keys = {item_key(item) for item in ((LCC,), (RCC,), (RCC, LCC), (LCC, RCC), (AGAIN, LCC))}
    assert len(keys) == 5 and {len(key) for key in keys} == {32}


@pytest.mark.parametrize("digest", ["", "12", "no digest"])
def test_an_image_without_a_digest_is_refused_with_what_to_do(digest: str) -> None:
    with pytest.raises(DataError, match="site-client preprocess"):
        item_key((replace(LCC, png_sha256=digest),))


def test_a_kind_is_found_again_by_its_name() -> None:
    kinds = (PooledFeatures(), MapFeatures(), PatchFeatures(num_patches=16))
    for kind in (*kinds, AsymmetryFeatures(window=(9, 5)), AsymmetryFeatures(window=(9, 5), stride=(3, 2))):
        assert kind_named(kind.slug) == kind
    for wrong in ("pool", "patches", "patches-0", "asymmetry-9x5", "asymmetry-0x5-1x1"):
        with pytest.raises(ValueError):
            kind_named(wrong)
