"""How well scores tell exams with a finding from exams without it. The level is always the exam."""

import math
from collections.abc import Iterable, Mapping, Sequence

from mammofed_shared.exam import Laterality


def exam_score(image_scores: Iterable[tuple[Laterality, float]]) -> float:
    """Score of an exam: the maximum over its breasts of the maximum over the breast's images.

    Args:
        image_scores: laterality and score of each image; at least one.
    """
    by_breast: dict[Laterality, float] = {}
    for laterality, score in image_scores:
        by_breast[laterality] = max(score, by_breast.get(laterality, -math.inf))
    return max(by_breast.values())


def auroc(labels: Sequence[bool], scores: Sequence[float]) -> float | None:
    """Area under the ROC curve; None where only one class exists."""
    if len(set(labels)) < 2:
        return None
    # Imported here, because a training visit would pay two seconds for it and never use it.
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def discrimination_numbers(labelled: Mapping[str, tuple[Sequence[bool], Sequence[float]]]) -> dict[str, float]:
    """Numbers of each finding, as a site may release them.

    Args:
        labelled: finding → labels and scores of the exams for which the finding is known.

    Returns:
        ``auroc/<finding>`` (left out where only one class exists), ``num_positive/…`` and ``num_labelled/…``.
    """
    numbers: dict[str, float] = {}
    for finding, (labels, scores) in labelled.items():
        numbers[f"num_labelled/{finding}"] = float(len(labels))
        numbers[f"num_positive/{finding}"] = float(sum(labels))
        area = auroc(labels, scores)
        if area is not None:
            numbers[f"auroc/{finding}"] = area
    return numbers
