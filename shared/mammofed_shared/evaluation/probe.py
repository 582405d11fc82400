"""A linear probe: what a frozen image encoder knows of a finding, whatever the texts say (paper: Linear probe)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.evaluation.discrimination import Labelled, exam_score
from mammofed_shared.exam import Exam

REGULARISATION_C = 0.1
"""Inverse strength of the penalty; 2,048 standardised features of a few thousand images need more than sklearn's 1."""
_MOST_ITERATIONS = 2000

Features = NDArray[np.float32]


def probe_scores(
    finding: str, trained: Sequence[Exam], trained_NF: Features, tested: Sequence[Exam], tested_NF: Features
) -> Labelled | None:
    """Scores of the test exams whose label is known, by a probe fitted to the training exams'; None where it cannot be.

    As with zero-shot scores the level of the probe is the image, which has its exam's label, and an exam's score is the
    maximum over its images. Every exam weighs the same in the fit, however many images it has.

    Args:
        trained_NF, tested_NF: features of all images of all exams, in the order of the exams and of their images.
    """
    rows, labels, weights = _image_rows(finding, trained)
    if len(set(labels)) < 2:
        return None
    # Imported here, because a training visit would pay two seconds for it and never use it.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION_C, max_iter=_MOST_ITERATIONS))
    probe.fit(trained_NF[rows], labels, logisticregression__sample_weight=weights)
    logits: list[float] = probe.decision_function(tested_NF).tolist()
    labelled = Labelled()
    start = 0
    for exam in tested:
        own = logits[start : start + len(exam.images)]
        start += len(exam.images)
        if finding in exam.labels:
            score = exam_score(zip([image.laterality for image in exam.images], own, strict=True))
            labelled.add(exam.labels[finding], score, exam.patient)
    return labelled


def _image_rows(finding: str, exams: Sequence[Exam]) -> tuple[list[int], list[bool], list[float]]:
    """Rows of the images of exams whose label is known, their labels and their weights."""
    rows: list[int] = []
    labels: list[bool] = []
    weights: list[float] = []
    start = 0
    for exam in exams:
        count = len(exam.images)
        if finding in exam.labels:
            rows += range(start, start + count)
            labels += [exam.labels[finding]] * count
            weights += [1 / count] * count
        start += count
    return rows, labels, weights
