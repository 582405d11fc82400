"""The linear probe on features of which it is known what they tell."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.evaluation.discrimination import auroc_numbers
from mammofed_shared.evaluation.probe import probe_scores
from mammofed_shared.exam import Exam, Image, Laterality, Split, View


def drawn(seed: int, num: int, labelled: bool = True) -> tuple[list[Exam], NDArray[np.float32]]:
    """Exams of 2 to 4 images, and 16 features an image: the fifth, of another scale, tells the mass in one of them."""
    random = np.random.default_rng(seed)
    exams, rows = [], []
    for number in range(num):
        has_mass = bool(random.random() < 0.4)
        count = int(random.integers(2, 5))
        features = random.normal(size=(count, 16))
        features[0, 4] += 4 * has_mass
        images = tuple(
            Image(f"{number}.{k}", Laterality.L, View.CC, Path("none.png"), "other", "") for k in range(count)
        )
        labels = {"mass": has_mass} if labelled else {}
        exams.append(Exam(f"e{number}", f"p{number}", "one", Split.TRAIN, None, images, labels))
        rows.append(features * ([1.0] * 4 + [100.0] + [1.0] * 11))
    return exams, np.concatenate(rows).astype(np.float32)


def test_the_probe_finds_the_feature_that_tells_the_finding() -> None:
    trained, tested = drawn(0, 150), drawn(1, 80)
    labelled = probe_scores("mass", *trained, *tested)
    assert labelled is not None
    assert labelled.labels == [exam.labels["mass"] for exam in tested[0]]
    assert labelled.patients[:2] == ["p0", "p1"]
    numbers = auroc_numbers(labelled)
    assert 0.9 < numbers["auroc_low"] < numbers["auroc"] <= numbers["auroc_high"] <= 1

    shuffled = trained[1].copy()
    np.random.default_rng(2).shuffle(shuffled)
    blind = probe_scores("mass", trained[0], shuffled, *tested)
    assert blind is not None and auroc_numbers(blind)["auroc_low"] < 0.6, "of noise it learns nothing"


def test_exams_without_a_label_are_neither_fitted_nor_scored() -> None:
    trained, tested, others = drawn(0, 60), drawn(1, 40), drawn(2, 30, labelled=False)
    alone = probe_scores("mass", *trained, *tested)
    mixed = probe_scores(
        "mass",
        [*others[0], *trained[0]],
        np.concatenate([others[1], trained[1]]),
        [*others[0], *tested[0]],
        np.concatenate([others[1], tested[1]]),
    )
    assert alone is not None and mixed == alone


def test_one_class_gives_no_probe() -> None:
    trained, tested = drawn(0, 60), drawn(1, 40)
    assert probe_scores("calcification", *trained, *tested) is None
