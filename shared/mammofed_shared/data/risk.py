"""Samples of the risk tasks: exams, what of them a head reads, and what it can learn from them.

Shapes: B exams, S slots of an exam, T years.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.config.features import FeatureKind
from mammofed_shared.data.features import Features, Item, bilateral_pairs, views_of
from mammofed_shared.exam import Exam, Laterality, View

VIEWS: tuple[tuple[Laterality, View], ...] = (
    (Laterality.L, View.CC),
    (Laterality.L, View.MLO),
    (Laterality.R, View.CC),
    (Laterality.R, View.MLO),
)
"""Slots of the MIRAI student."""
PAIRS: tuple[View, ...] = (View.CC, View.MLO)
"""Slots of AsymMIRAI."""
NUM_YEARS = 5

Slots: TypeAlias = tuple[tuple[Item, ...], ...]
"""What stands in each slot of an exam: the items that it is read from, or none where it is missing."""
MissingViews = Literal["mask", "refuse"]


@dataclass(frozen=True, slots=True)
class Targets:
    """What is known of one exam: the teacher's risks of 1 to 5 years or None, whether cancer was found within t years
    (T,), and of which t that is known (T,)."""

    teacher: tuple[float, ...] | None
    has_cancer: NDArray[np.bool_]
    known: NDArray[np.bool_]

    @property
    def has_outcome(self) -> bool:
        """Whether the outcome of any year is known."""
        return bool(self.known.any())


@dataclass(frozen=True, slots=True)
class RiskSample:
    """One exam that a head learns from."""

    exam: Exam
    slots: Slots
    targets: Targets


@dataclass(frozen=True, slots=True)
class RiskSamples:
    """The samples of some exams, and the exams that are none: for want of views, or of anything to learn."""

    samples: tuple[RiskSample, ...]
    without_views: tuple[Exam, ...]
    without_targets: tuple[Exam, ...]


def censored_labels(exam: Exam) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether cancer was found within 1 to 5 years, and of which years that is known; both (T,).

    ``years_to_cancer`` of k means in year k + 1. Without cancer, the years of follow-up are known to be free of it;
    all later ones are censored.
    """
    years_T = np.arange(1, NUM_YEARS + 1)
    if exam.years_to_cancer is not None:
        return exam.years_to_cancer < years_T, np.ones(NUM_YEARS, np.bool_)
    return np.zeros(NUM_YEARS, np.bool_), years_T <= (exam.years_followed or 0)


def exam_slots(kind: FeatureKind, exam: Exam) -> Slots:
    """The slots of an exam: its four views, or (of ``asymmetry`` and ``maps``) its two pairs.

    A pair is one item of ``asymmetry``; of ``maps`` it is two, right and left.
    """
    if kind.kind == "pooled":
        views = views_of(exam)
        return tuple(((views[place],),) if place in views else () for place in VIEWS)
    pairs = bilateral_pairs(exam)
    found = [pairs.get(view) for view in PAIRS]
    if kind.kind == "maps":
        return tuple(() if pair is None else tuple((image,) for image in pair) for pair in found)
    return tuple(() if pair is None else (pair,) for pair in found)


def is_readable(slots: Slots, missing_views: MissingViews) -> bool:
    """Whether a head reads such an exam: at least one slot is there, or all where missing ones are refused."""
    return all(slots) if missing_views == "refuse" else any(slots)


def targets_of(exam: Exam, alpha: float) -> Targets:
    """What an exam can teach; of a part that has no weight in the loss, nothing."""
    has_cancer, known = censored_labels(exam)
    return Targets(exam.teacher if alpha > 0 else None, has_cancer, known & (alpha < 1))


def risk_samples(exams: Sequence[Exam], kind: FeatureKind, missing_views: MissingViews, alpha: float) -> RiskSamples:
    """The samples of exams, in their order."""
    samples: list[RiskSample] = []
    without_views: list[Exam] = []
    without_targets: list[Exam] = []
    for exam in exams:
        slots, targets = exam_slots(kind, exam), targets_of(exam, alpha)
        if not is_readable(slots, missing_views):
            without_views.append(exam)
        elif targets.teacher is None and not targets.has_outcome:
            without_targets.append(exam)
        else:
            samples.append(RiskSample(exam, slots, targets))
    return RiskSamples(tuple(samples), tuple(without_views), tuple(without_targets))


def read_slots(features: Features, slots_of: Sequence[Slots]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Features of exams (B, S, *row), 0 where a slot is missing, and whether it is there (B, S).

    Of ``maps``, whose slots have two items each, they are (B, S, 2, *row).

    Raises:
        DataError: an item's features were not computed.
    """
    present_BS = np.array([[bool(items) for items in slots] for slots in slots_of])
    inner = (2, *features.row_shape) if features.kind.kind == "maps" else features.row_shape
    array = np.zeros((*present_BS.shape, *inner), np.float32)
    items = [item for slots in slots_of for items in slots for item in items]
    array[present_BS] = features.read(items).reshape(-1, *inner)
    return array, present_BS


def target_arrays(targets: Sequence[Targets]) -> tuple[NDArray[Any], ...]:
    """Teacher's risks (B, T) and whether there are any (B,), cancer within t years (B, T) and where it is known."""
    teacher_BT = [item.teacher or (0.5,) * NUM_YEARS for item in targets]
    return (
        np.array(teacher_BT, np.float32),
        np.array([item.teacher is not None for item in targets], np.float32),
        np.array([item.has_cancer for item in targets], np.float32),
        np.array([item.known for item in targets], np.bool_),
    )
