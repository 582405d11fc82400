"""Image–text retrieval on vectors whose ranks are known."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mammofed_shared.evaluation import retrieval
from mammofed_shared.evaluation.retrieval import breast_vectors, own_text_ranks, recalls, report_text
from mammofed_shared.exam import Exam, Image, Laterality, Report, Split, View

L, R = Laterality.L, Laterality.R


def exam(name: str, *sides: Laterality) -> Exam:
    images = tuple(
        Image(f"{name}{index}", side, View.CC, Path("none.png"), "other", "") for index, side in enumerate(sides)
    )
    return Exam(name, name, "one", Split.VALIDATION, Report("a", "b"), images)


def unit(*rows: tuple[float, ...]) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)


def test_a_breast_is_the_direction_of_the_mean_of_its_images() -> None:
    images = unit((1, 0), (0, 1), (1, 0), (-1, 0))
    vectors, owners = breast_vectors([exam("a", L, R, L), exam("b", R)], images)
    assert owners == [0, 0, 1], "left and right of the first exam, right of the second"
    assert torch.allclose(vectors, unit((1, 0), (0, 1), (-1, 0)))


def test_the_text_is_the_whole_report() -> None:
    assert report_text(Report("Findings.", "Impression.")) == "Findings. Impression."
    assert report_text(Report("", "Impression.")) == "Impression."


def test_ranks_count_wrong_texts_as_often_as_exams_have_them() -> None:
    texts = unit((1, 0), (1, 1), (0, 1))
    repeats = torch.tensor([1, 4, 1])
    breasts = unit((1, 0.1), (1, 0.1), (1, 0.1))
    ranks = own_text_ranks(breasts, texts, torch.tensor([0, 1, 2]), repeats)
    # The second text is four exams'; whichever of the four is meant, the others are right as well.
    assert ranks.tolist() == [1, 2, 6]
    assert recalls(ranks, (1, 5)) == {"recall_at_1": pytest.approx(1 / 3), "recall_at_5": pytest.approx(2 / 3)}


def test_a_model_that_gives_all_texts_one_vector_finds_nothing() -> None:
    texts = unit(*[(1.0, 2.0, 3.0)] * 20)
    ranks = own_text_ranks(unit((3, 2, 1), (1, 2, 3)), texts, torch.tensor([0, 7]), torch.ones(20, dtype=torch.long))
    assert recalls(ranks, (1, 10)) == {"recall_at_1": 0.0, "recall_at_10": 0.0}


def test_blocks_of_any_size_give_the_same_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    breasts, texts = (torch.nn.functional.normalize(torch.randn(50, 8, generator=generator)) for _ in range(2))
    own, repeats = torch.arange(50), torch.ones(50, dtype=torch.long)
    whole = own_text_ranks(breasts, texts, own, repeats)
    monkeypatch.setattr(retrieval, "_BLOCK_VALUES", 3 * 50)
    assert torch.equal(own_text_ranks(breasts, texts, own, repeats), whole)
    similarity = breasts.double() @ texts.double().T
    assert whole.tolist() == [1 + int((row > row[index]).sum()) for index, row in enumerate(similarity)]
