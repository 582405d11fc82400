"""Samples, and their pairs of images."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mammofed_shared.data.augment import Ranges
from mammofed_shared.data.image_text import (
    breast_samples,
    image_pair,
    load_grey,
    require_training_data,
    stack_greys,
)
from mammofed_shared.errors import DataError, VisitFailed
from mammofed_shared.exam import Exam, Image, Laterality, Report, Split, View


def image(folder: Path, side: str, view: str, value: int, name: str = "") -> Image:
    path = folder / f"{name}{side}{view}.png"
    pixels = np.full((24, 16), value, np.uint8)
    pixels[4:9, 2:6] = 250
    cv2.imwrite(str(path), pixels)
    return Image(path.stem, Laterality(side), View(view), path, "other", "")


def exam(images: tuple[Image, ...], split: Split = Split.TRAIN, report: Report | None = None, name: str = "e") -> Exam:
    return Exam(name, name, "one", split, report, images)


REPORT = Report("There is a mass. There are no calcifications.", "A mass.")


def test_a_sample_is_a_breast_of_a_training_exam_with_a_text(tmp_path: Path) -> None:
    images = tuple(image(tmp_path, side, view, 1) for side, view in (("L", "CC"), ("L", "MLO"), ("R", "MLO")))
    exams = [
        exam(images, report=REPORT, name="used"),
        exam(images, report=None, name="no-text"),
        exam(images, Split.TEST, REPORT, name="test"),
        exam((), report=REPORT, name="no-image"),
    ]

    samples = breast_samples(exams, Split.TRAIN)

    assert [(sample.exam.exam, sample.laterality, set(sample.images)) for sample in samples] == [
        ("used", Laterality.L, {View.CC, View.MLO}),
        ("used", Laterality.R, {View.MLO}),
    ]


def test_the_second_image_is_the_other_view_where_it_exists(tmp_path: Path) -> None:
    images = (image(tmp_path, "L", "CC", 10), image(tmp_path, "L", "MLO", 60))
    (sample,) = breast_samples([exam(images, report=REPORT)], Split.TRAIN)

    first, second = image_pair(sample, Ranges(), np.random.default_rng(0))

    assert first[0, 0] == 10 and second[0, 0] == 60


@pytest.mark.parametrize("both_views", [True, False])
def test_the_second_image_is_synthetic_where_the_other_view_is_missing_or_not_wanted(
    tmp_path: Path, both_views: bool
) -> None:
    images = (image(tmp_path, "L", "CC", 10), image(tmp_path, "L", "MLO", 60))[: 2 if both_views else 1]
    (sample,) = breast_samples([exam(images, report=REPORT)], Split.TRAIN)

    first, second = image_pair(sample, Ranges(), np.random.default_rng(0), natural_view=not both_views)

    assert np.array_equal(first, load_grey(images[0]))
    assert not np.array_equal(second, first)
    assert 60 not in second[:2]


def test_fewer_than_two_exams_are_no_data(tmp_path: Path) -> None:
    images = (image(tmp_path, "L", "CC", 10), image(tmp_path, "R", "CC", 10))
    samples = breast_samples([exam(images, report=REPORT)], Split.TRAIN)
    assert len(samples) == 2

    with pytest.raises(VisitFailed, match=r"NO_DATA.*found 1"):
        require_training_data(samples)


def test_an_unreadable_image_is_refused_without_its_name(tmp_path: Path) -> None:
    gone = Image("secret", Laterality.L, View.CC, tmp_path / "secret.png", "other", "")

    with pytest.raises(DataError) as caught:
        load_grey(gone)

    assert "secret" not in str(caught.value)


def test_images_of_different_sizes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(4, 4\), \(4, 5\)"):
        stack_greys([np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)])
