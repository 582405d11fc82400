"""What brightness alone would score, so that nobody mistakes it for learning.

A mass is large and bright: its baseline is the brightest spot of the blurred image. A calcification is small and
bright: its baseline is the brightest spot of the image less its blur. An exam's score is the maximum over its images,
as for the model.
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mammofed_shared.errors import DataError
from mammofed_shared.exam import Exam, Split
from mammofed_simulation.demo.results import FINDINGS
from mammofed_simulation.demo.scores import Scored

_MASS_SIGMA = 1 / 32
_CALCIFICATION_SIGMA = 1 / 128
"""Widths of the blurs as fractions of the image's height: 8 and 2 pixels of 256."""


def blurred_maximum(image: NDArray[np.uint8]) -> float:
    """Brightest value of the blurred image, 0..255.

    Args:
        image: (height, width).
    """
    return float(_blur(image, _MASS_SIGMA).max())


def high_pass_maximum(image: NDArray[np.uint8]) -> float:
    """Largest value of the image less its blur, 0..255.

    Args:
        image: (height, width).
    """
    return float((image.astype(np.float32) - _blur(image, _CALCIFICATION_SIGMA)).max())


_SCORES = {"mass": blurred_maximum, "calcification": high_pass_maximum}


def baseline_scores(exams: Iterable[Exam]) -> list[Scored]:
    """Scores of the held-out exams for each finding whose presence is known."""
    scores = []
    for exam in exams:
        known = [finding for finding in FINDINGS if finding in exam.labels]
        if exam.split is Split.TEST and exam.images and known:
            images = [_read(exam, index) for index in range(len(exam.images))]
            scores += [Scored(finding, exam.labels[finding], _best(finding, images)) for finding in known]
    return scores


def _best(finding: str, images: Sequence[NDArray[np.uint8]]) -> float:
    return max(_SCORES[finding](image) for image in images)


def _read(exam: Exam, index: int) -> NDArray[np.uint8]:
    image = cv2.imread(str(exam.images[index].path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise DataError("a prepared image cannot be read: run `site-client preprocess` again")
    return np.asarray(image, np.uint8)


def _blur(image: NDArray[np.uint8], sigma: float) -> NDArray[np.float32]:
    blurred = cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma * image.shape[0])
    return np.asarray(blurred, np.float32)
