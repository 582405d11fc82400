"""Samples of pretraining: the breasts of exams, and their pair of images."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mammofed_shared.data.augment import Ranges, synthetic_view
from mammofed_shared.errors import DataError, RefusalCode, VisitFailed
from mammofed_shared.exam import BreastSample, Exam, Image, Laterality, Split, View


def breast_samples(exams: Sequence[Exam], split: Split) -> list[BreastSample]:
    """Every breast that has an image, of every exam of the split that has a text; in the order of the exams."""
    samples: list[BreastSample] = []
    for exam in exams:
        if exam.split is not split or exam.report is None:
            continue
        for laterality in Laterality:
            images: dict[View, Image] = {}
            for image in exam.images:
                if image.laterality is laterality:
                    # A repeated exposure of a view adds nothing that the first has not.
                    images.setdefault(image.view, image)
            if images:
                samples.append(BreastSample(exam, laterality, images))
    return samples


def load_grey(image: Image) -> NDArray[np.uint8]:
    """A prepared image, (height, width) uint8.

    Raises:
        DataError: the file is gone or is no image; the message does not name it.
    """
    pixels = cv2.imread(str(image.path), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise DataError("a prepared image cannot be read: run `site-client preprocess` again")
    return np.asarray(pixels, np.uint8)


def stack_greys(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Images as one array (images, height, width).

    Raises:
        DataError: they differ in size.
    """
    sizes = sorted({image.shape for image in images})
    if len(sizes) > 1:
        raise DataError(
            f"prepared images: expected one size, found {', '.join(map(str, sizes))}. "
            "Run `site-client preprocess` again for all data sets of this site."
        )
    return np.stack(images)


def image_pair(
    sample: BreastSample, ranges: Ranges, random: np.random.Generator, *, natural_view: bool = True
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image of the breast and its second view: the other view where it exists, else a synthetic one."""
    first = sample.images.get(View.CC) or sample.images[View.MLO]
    image = load_grey(first)
    other = sample.images.get(View.MLO)
    if natural_view and other is not None and other is not first:
        return image, load_grey(other)
    return image, synthetic_view(image, ranges, random)


def require_training_data(samples: Sequence[BreastSample]) -> None:
    """Refuse to train where nothing can be told apart.

    Raises:
        VisitFailed: NO_DATA, with fewer than two exams.
    """
    num_exams = len({(sample.exam.dataset, sample.exam.exam) for sample in samples})
    if num_exams < 2:
        raise VisitFailed(
            RefusalCode.NO_DATA,
            f"training needs at least 2 exams with images and a text in the split train, found {num_exams}: "
            "check `reports`, `attributes` and `split` of this site, and run `site-client preprocess` again",
        )
