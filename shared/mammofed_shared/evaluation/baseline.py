"""Trivial baselines: what brightness alone tells of a finding, so that nobody mistakes it for learning."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mammofed_shared.data.image_text import load_grey
from mammofed_shared.evaluation.discrimination import exam_score
from mammofed_shared.evaluation.zero_shot import ExamScore
from mammofed_shared.exam import Exam

MASS_BLUR = 1 / 32
"""Standard deviation of the blur that finds a bright disc, as a share of the image's height."""
SPECK_BLUR = 1 / 128
"""Standard deviation of the blur that is taken away to find a bright speck."""


def brightness_score(finding: str, grey: NDArray[np.uint8]) -> float:
    """Maximum of the blurred image for masses, of the high-pass image for calcifications.

    Raises:
        KeyError: no baseline is known for the finding.
    """
    image = grey.astype(np.float32)

    def blurred(share: float) -> NDArray[np.float32]:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), share * image.shape[0]), np.float32)

    baselines = {
        "mass": lambda: blurred(MASS_BLUR),
        "calcification": lambda: image - blurred(SPECK_BLUR),
    }
    return float(baselines[finding]().max())


def baseline_scores(exams: Sequence[Exam], findings: Sequence[str]) -> list[ExamScore]:
    """Baseline scores of exams, by maximum over the images; each exam has at least one image."""
    scores: list[ExamScore] = []
    for exam in exams:
        greys = [(image.laterality, load_grey(image)) for image in exam.images]
        for finding in findings:
            score = exam_score((side, brightness_score(finding, grey)) for side, grey in greys)
            scores.append(ExamScore(exam, finding, exam.labels.get(finding), score))
    return scores
