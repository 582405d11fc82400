"""Zero-shot scores and their AUROC, on vectors whose answer is known."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mammofed_shared.evaluation.discrimination import Labelled, discrimination_numbers, exam_score
from mammofed_shared.evaluation.zero_shot import (
    density_accuracy,
    finding_numbers,
    prompt_direction,
    score_findings,
)
from mammofed_shared.exam import Exam, Image, Laterality, Split, View
from mammofed_shared.report.prompts import prompts_of

L, R = Laterality.L, Laterality.R


def exam(name: str, label: bool | None, density: str | None = None, path: Path = Path("none.png")) -> Exam:
    images = tuple(Image(f"{name}{side}", side, View.CC, path, "other", "") for side in (L, R))
    labels = {} if label is None else {"mass": label}
    return Exam(name, name, "one", Split.TEST, None, images, labels, density)


def embed(texts: Sequence[str]) -> torch.Tensor:
    """Masses lie along x, calcifications along y; each density along an axis of its own."""
    words = ("mass", "calcifications", "fatty", "scattered", "heterogeneously", "extremely")
    rows = [[float(word in text) for word in words] for text in texts]
    return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)


def vectors(*rows: Sequence[float]) -> torch.Tensor:
    padded = torch.zeros(len(rows), 6)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row)
    return torch.nn.functional.normalize(padded, dim=-1)


def test_an_exams_score_is_the_maximum_over_breasts_and_images() -> None:
    assert exam_score([(L, 0.1), (L, 0.4), (R, -0.2), (R, 0.3)]) == 0.4
    assert exam_score([(R, -0.5)]) == -0.5


def test_direction_is_the_normalised_mean_of_the_prompts() -> None:
    directions = {"left": [1.0, 0.0], "right": [0.0, 1.0]}

    def by_side(texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([directions["left" if " left " in text else "right"] for text in texts])

    assert torch.allclose(prompt_direction(prompts_of("mass"), by_side), torch.tensor([0.5, 0.5]).sqrt())


def test_scores_and_numbers_of_exams_with_known_answers() -> None:
    exams = [exam("a", True), exam("b", False), exam("c", None)]
    images = vectors([0, 1], [1, 0], [1, 4], [0, 1], [1, 1], [1, 1])

    scores = score_findings(exams, images, ["mass", "calcification"], embed)
    numbers = finding_numbers(scores, ["mass", "calcification"], least_cell=1)

    found = {(score.exam.exam, score.finding): score.score for score in scores}
    assert found["a", "mass"] == pytest.approx(1.0)
    assert found["b", "mass"] == pytest.approx(1 / np.sqrt(17))
    assert numbers == {
        "num_labelled/mass": 2.0,
        "num_positive/mass": 1.0,
        "auroc/mass": 1.0,
        "auroc_low/mass": 1.0,
        "auroc_high/mass": 1.0,
        "histogram_positive/mass/1999": 0.0,
        "histogram_positive/mass/2000": 1.0,
        "histogram_negative/mass/1242": 0.0,
        "histogram_negative/mass/1243": 1.0,
        "suppressed/calcification": 1.0,
    }


def test_a_finding_of_too_few_patients_in_either_class_is_not_told() -> None:
    def labelled(num_positive: int, num_negative: int, exams_of_each: int = 1) -> Labelled:
        found = Labelled()
        for number in range(num_positive + num_negative):
            for _ in range(exams_of_each):
                found.add(number < num_positive, number / 100, f"p{number}")
        return found

    assert set(discrimination_numbers(labelled(3, 3), 3)) == {
        "num_labelled",
        "num_positive",
        "auroc",
        "auroc_low",
        "auroc_high",
    }
    assert discrimination_numbers(labelled(2, 50), 3) == {}
    assert discrimination_numbers(labelled(50, 2), 3) == {}
    assert discrimination_numbers(labelled(2, 50, exams_of_each=9), 3) == {}, "18 exams of two patients"
    assert discrimination_numbers(labelled(0, 50), 1) == {}


def test_density_is_that_of_the_nearest_sentence_over_known_exams() -> None:
    exams = [exam("a", None, "A"), exam("b", None, "D"), exam("c", None)]
    fatty, extreme = [0, 0, 1], [0, 0, 0, 0, 0, 1]
    images = vectors(fatty, fatty, fatty, fatty, extreme, extreme)

    assert density_accuracy(exams, images, embed, least_cell=2) == 0.5
    assert density_accuracy(exams, images, embed, least_cell=3) is None
    assert density_accuracy(exams[2:], images[4:], embed, least_cell=1) is None
