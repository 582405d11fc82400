"""What a task reads instead of pixels: items of exams, known by the pixels that they hold, and their features.

An item is what one row of features is of: an image, or the right and the left image of one view.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.config.features import FeatureKind
from mammofed_shared.errors import DataError
from mammofed_shared.exam import Exam, Image, Laterality, View

Item: TypeAlias = tuple[Image, ...]
"""(image,), or (right, left) of ``asymmetry``."""
KEY_BYTES = 32


class Features(Protocol):
    """Features of one kind, to be read; what an item has is computed once (``evaluation/cached_features.py``)."""

    @property
    def kind(self) -> FeatureKind:
        """What they are."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of one item, as ``config/features.py`` says."""

    def read(self, items: Sequence[Item]) -> NDArray[np.float32]:
        """Features (items, *row_shape) in the order of the items; threads may call it at once.

        Raises:
            DataError: an item's features were not computed.
        """


def views_of(exam: Exam) -> dict[tuple[Laterality, View], Image]:
    """The exam's image of each view; a view that was not taken is absent, and of a repeated one the first counts."""
    found: dict[tuple[Laterality, View], Image] = {}
    for image in exam.images:
        found.setdefault((image.laterality, image.view), image)
    return found


def bilateral_pairs(exam: Exam) -> dict[View, Item]:
    """(right, left) of each view that was taken of both breasts."""
    images = views_of(exam)
    return {
        view: (images[Laterality.R, view], images[Laterality.L, view])
        for view in View
        if (Laterality.R, view) in images and (Laterality.L, view) in images
    }


def items_of(kind: FeatureKind, exams: Iterable[Exam]) -> list[Item]:
    """All items of the exams in their order, each once: images that hold the same pixels are one."""
    if kind.kind == "asymmetry":
        found = [pair for exam in exams for pair in bilateral_pairs(exam).values()]
    else:
        found = [(image,) for exam in exams for image in exam.images]
    return list({item_key(item): item for item in found}.values())


def item_key(item: Item) -> bytes:
    """By what an item's features are found again: its pixels, as 32 bytes.

    Raises:
        DataError: the tables do not say the digest of an image.
    """
    try:
        digests = [bytes.fromhex(image.png_sha256) for image in item]
    except ValueError as error:
        raise _without_digest() from error
    if any(len(digest) != KEY_BYTES for digest in digests):
        raise _without_digest()
    return digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()


def _without_digest() -> DataError:
    return DataError("images.parquet names no png_sha256 for an image: run `site-client preprocess` again")
