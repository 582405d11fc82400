"""Samples of the sparse autoencoder: images of exams, each with the patches that are kept of it.

Shapes: I images, P patches of each, C channels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.data.features import Features
from mammofed_shared.exam import Exam, Image


@dataclass(frozen=True, slots=True)
class ImageSample:
    """One image of an exam."""

    exam: Exam
    image: Image


def image_samples(exams: Iterable[Exam]) -> list[ImageSample]:
    """Every image of the exams, in their order."""
    return [ImageSample(exam, image) for exam in exams for image in exam.images]


def patch_rows(features: Features, samples: Sequence[ImageSample]) -> NDArray[np.float32]:
    """The patches of some images one after the other, (I · P, C).

    Raises:
        DataError: the features of an image were not computed.
    """
    found_IPC = features.read([(sample.image,) for sample in samples])
    return found_IPC.reshape(-1, found_IPC.shape[-1])
