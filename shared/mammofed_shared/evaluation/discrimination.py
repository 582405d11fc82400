"""How well scores tell exams with a finding from exams without it. The level is always the exam."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mammofed_shared.evaluation.statistics import auroc, auroc_interval
from mammofed_shared.exam import Laterality


@dataclass(frozen=True, slots=True)
class Labelled:
    """The exams for which a finding is known: label, score and patient, one of each an exam."""

    labels: list[bool] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)

    def add(self, label: bool, score: float, patient: str) -> None:
        """Add an exam."""
        self.labels.append(label)
        self.scores.append(score)
        self.patients.append(patient)

    def of_class(self, label: bool) -> tuple[Sequence[float], Sequence[str]]:
        """Scores and patients of the exams with the finding, or of those without it."""
        found = [index for index, own in enumerate(self.labels) if own is label]
        return [self.scores[index] for index in found], [self.patients[index] for index in found]

    def is_told(self, least_cell: int) -> bool:
        """Whether enough patients stand behind either class for numbers to leave the site.

        A patient with an exam of either class stands behind both.
        """
        return all(len(set(self.of_class(label)[1])) >= least_cell for label in (True, False))


def exam_score(image_scores: Iterable[tuple[Laterality, float]]) -> float:
    """Score of an exam: the maximum over its breasts of the maximum over the breast's images.

    Args:
        image_scores: laterality and score of each image; at least one.
    """
    by_breast: dict[Laterality, float] = {}
    for laterality, score in image_scores:
        by_breast[laterality] = max(score, by_breast.get(laterality, -math.inf))
    return max(by_breast.values())


def auroc_numbers(labelled: Labelled) -> dict[str, float]:
    """``auroc`` with its 95 % interval ``auroc_low`` … ``auroc_high``; empty where only one class exists."""
    area = auroc(labelled.labels, labelled.scores)
    if area is None:
        return {}
    interval = auroc_interval(labelled.labels, labelled.scores, labelled.patients)
    return {"auroc": area, "auroc_low": interval.low, "auroc_high": interval.high}


def discrimination_numbers(labelled: Labelled, least_cell: int) -> dict[str, float]:
    """The numbers of one finding that a site may tell: those of ``auroc_numbers``, ``num_positive``, ``num_labelled``.

    Args:
        least_cell: with fewer patients than this behind the positives or the negatives there are none.
    """
    if not labelled.is_told(least_cell):
        return {}
    counts = {"num_labelled": float(len(labelled.labels)), "num_positive": float(sum(labelled.labels))}
    return counts | auroc_numbers(labelled)
