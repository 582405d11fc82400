"""Samples of the risk tasks: censored outcomes, views that are there, and exams that teach nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mammofed_shared.config.features import AsymmetryFeatures, FeatureKind, MapFeatures, PooledFeatures
from mammofed_shared.data.features import Item
from mammofed_shared.data.risk import PAIRS, VIEWS, censored_labels, exam_slots, read_slots, risk_samples
from mammofed_shared.exam import Exam, Image, Laterality, Split, View
from mammofed_shared.models import asymmirai, mirai

TEACHER = (0.1, 0.2, 0.3, 0.4, 0.5)
ASYMMETRY = AsymmetryFeatures(window=(2, 2))
NUMBER: Mapping[str, float] = {"LCC": 1, "LMLO": 2, "RCC": 3, "RMLO": 4}


def _exam(views: Sequence[str] = tuple(NUMBER), **known: object) -> Exam:
    images = tuple(Image(v, Laterality(v[0]), View(v[1:]), Path(v), "other", "") for v in views)
    exam = Exam("e", "p", "d", Split.TRAIN, None, images)
    return replace(exam, **known)  # type: ignore[arg-type]


class NumberedFeatures:
    """Of a view its number; of a pair the difference of its sides' numbers."""

    row_shape = (1,)

    def __init__(self, kind: FeatureKind) -> None:
        self.kind = kind

    def read(self, items: Sequence[Item]) -> NDArray[np.float32]:
        values = [[NUMBER[image.image] for image in item] for item in items]
        return np.array([[own[0] - own[1] if len(own) == 2 else own[0]] for own in values], np.float32)


def test_the_heads_take_views_and_pairs_in_the_order_of_the_slots() -> None:
    assert VIEWS == mirai.VIEWS
    assert PAIRS == asymmirai.PAIRS


@pytest.mark.parametrize(
    ("to_cancer", "followed", "has_cancer", "known"),
    [
        (0, 0, [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]),
        (2, 2, [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]),
        (5, 5, [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]),
        (None, 3, [0, 0, 0, 0, 0], [1, 1, 1, 0, 0]),
        (None, 9, [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]),
        (None, 0, [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
        (None, None, [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]),
    ],
)
def test_years_after_the_end_of_follow_up_are_not_known(
    to_cancer: int | None, followed: int | None, has_cancer: list[int], known: list[int]
) -> None:
    labels = censored_labels(_exam(years_to_cancer=to_cancer, years_followed=followed))

    assert [own.astype(int).tolist() for own in labels] == [has_cancer, known]


@pytest.mark.parametrize(
    ("kind", "expected", "present"),
    [
        (PooledFeatures(), [[1], [2], [3], [0]], [1, 1, 1, 0]),
        (ASYMMETRY, [[2], [0]], [1, 0]),
        (MapFeatures(), [[[3], [1]], [[0], [0]]], [1, 0]),
    ],
    ids=lambda value: getattr(value, "slug", ""),
)
def test_a_missing_view_leaves_its_slot_empty(kind: FeatureKind, expected: object, present: list[int]) -> None:
    whole, lacking = exam_slots(kind, _exam()), exam_slots(kind, _exam(["RCC", "LMLO", "LCC"]))

    array, present_BS = read_slots(NumberedFeatures(kind), [whole, lacking])

    assert array[1].tolist() == expected
    assert present_BS.astype(int).tolist() == [[1] * len(present), present]
    assert array[0].all(), "right and left differ in every view"


@pytest.mark.parametrize(
    ("kind", "views", "is_masked", "is_refused"),
    [
        (PooledFeatures(), [], True, True),
        (PooledFeatures(), ["RMLO"], False, True),
        (ASYMMETRY, ["RMLO", "LCC"], True, True),
        (ASYMMETRY, ["RMLO", "LCC", "LMLO"], False, True),
        (ASYMMETRY, list(NUMBER), False, False),
    ],
)
def test_an_exam_is_left_out_for_want_of_views(
    kind: FeatureKind, views: list[str], is_masked: bool, is_refused: bool
) -> None:
    exam = _exam(views, teacher=TEACHER)

    assert bool(risk_samples([exam], kind, "mask", 0.5).without_views) is is_masked
    assert bool(risk_samples([exam], kind, "refuse", 0.5).without_views) is is_refused


@pytest.mark.parametrize(
    ("known", "alpha", "learns_from"),
    [
        ({"teacher": TEACHER, "years_followed": 2}, 0.5, (True, True)),
        ({"teacher": TEACHER, "years_followed": 0}, 0.5, (True, False)),
        ({"years_to_cancer": 1}, 0.5, (False, True)),
        ({"teacher": TEACHER, "years_followed": 2}, 1.0, (True, False)),
        ({"teacher": TEACHER, "years_followed": 2}, 0.0, (False, True)),
        ({"years_followed": 2}, 1.0, None),
        ({"teacher": TEACHER}, 0.0, None),
        ({}, 0.5, None),
    ],
)
def test_an_exam_learns_from_what_is_known_of_it_and_has_weight(
    known: dict[str, object], alpha: float, learns_from: tuple[bool, bool] | None
) -> None:
    found = risk_samples([_exam(**known)], PooledFeatures(), "mask", alpha)

    if learns_from is None:
        assert len(found.without_targets) == 1 and not found.samples
    else:
        (sample,) = found.samples
        assert (sample.targets.teacher is not None, sample.targets.has_outcome) == learns_from
