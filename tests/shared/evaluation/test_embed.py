"""Embedding for evaluation: nothing of the model moves, and a batch that does not fit is halved."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.evaluation.choice import fixed_choice
from mammofed_shared.evaluation.embed import embed_images, unmoved
from mammofed_shared.exam import Exam, Image, Laterality, Split, View

CPU = torch.device("cpu")


@pytest.fixture
def images(tmp_path: Path) -> list[Image]:
    found = []
    for number in range(7):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), np.full((4, 3), 10 * number, np.uint8))
        found.append(Image(str(number), Laterality.L, View.CC, path, "other", ""))
    return found


class Encoder:
    """Gives each image its mean; has room for so many images at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def __call__(self, greys: Tensor) -> Tensor:
        self.sizes.append(len(greys))
        if len(greys) > self.room:
            raise torch.OutOfMemoryError
        return greys.float().mean(dim=(1, 2))[:, None]


def embedded(encode: Encoder, images: list[Image]) -> list[float]:
    vectors = embed_images(encode, images, batch_size=4, device=CPU, loaders=1, report=lambda done, total: None)
    return vectors[:, 0].tolist()


def test_a_batch_that_does_not_fit_is_encoded_in_halves_and_so_is_the_rest(images: list[Image]) -> None:
    roomy, tight = Encoder(room=4), Encoder(room=1)
    assert embedded(roomy, images) == embedded(tight, images) == [10.0 * number for number in range(7)]
    assert roomy.sizes == [4, 3]
    assert tight.sizes == [4, 2, 1, 1, 1, 1, 1, 1, 1], "what was learnt holds for the next batch"


def test_one_image_that_does_not_fit_ends_the_visit_with_its_code(images: list[Image]) -> None:
    with pytest.raises(VisitFailed) as caught:
        embedded(Encoder(room=0), images)
    assert caught.value.code is RefusalCode.OUT_OF_MEMORY


def test_vectors_that_are_not_finite_end_the_visit_with_their_code(images: list[Image]) -> None:
    with pytest.raises(VisitFailed) as caught:
        embed_images(
            lambda greys: torch.full((len(greys), 1), torch.nan),
            images,
            batch_size=4,
            device=CPU,
            loaders=1,
            report=lambda done, total: None,
        )
    assert caught.value.code is RefusalCode.NOT_FINITE


def test_every_module_comes_back_in_its_own_mode() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2))).train()
    model[1][1].eval()  # as one that is frozen
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with unmoved(model, CPU):
        assert not any(module.training for module in model.modules())
        assert not model(torch.randn(8, 2)).requires_grad
    assert [module.training for module in model.modules()] == [True, True, True, True, False]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_choice_of_exams_is_the_same_in_any_order_and_of_any_company() -> None:
    exams = [Exam(f"e{number}", "p", "one", Split.VALIDATION, None, ()) for number in range(100)]
    chosen = fixed_choice(exams, 20)
    assert len(chosen) == 20 and chosen == [exam for exam in exams if exam in chosen]
    assert {exam.exam for exam in fixed_choice(exams[::-1], 20)} == {exam.exam for exam in chosen}
    assert {exam.exam for exam in fixed_choice(exams[:99], 20)} >= {exam.exam for exam in chosen if exam in exams[:99]}
    assert fixed_choice(exams, 100) == exams and fixed_choice(exams, 0) == []
