"""A synthetic second view of a mammogram: flips, affine map, elastic map (paper: instance augmentation).

Ranges are symmetric about no change; the authors' released code moves every image by the full range instead.
Images are (height, width) uint8; what comes in from outside is 0, as the background is.
"""

import os
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else its import asks the internet for a newer version
import albumentations

Grey = NDArray[np.uint8]

_DRAWN_PER_SIGMA = 5
"""Points of an elastic field that are drawn along one σ of its smoothness; those between are interpolated."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """How far an image may be moved; units as the names say, ``translation`` as a fraction of the size."""

    flip_probability: float = 0.5
    rotation_deg: float = 20.0
    translation: float = 0.1
    scale: tuple[float, float] = (0.8, 1.2)
    shear_deg: float = 20.0
    elastic_alpha_px: float = 10.0
    elastic_sigma_px: float = 15.0


def synthetic_view(image: Grey, ranges: Ranges, random: np.random.Generator) -> Grey:
    """One random view; equal generators give equal views."""
    return elastic(affine(flip(image, ranges, random), ranges, random), ranges, random)


def flip(image: Grey, ranges: Ranges, random: np.random.Generator) -> Grey:
    """Mirror left–right and top–bottom, each with ``flip_probability``."""
    # By hand: a composition of albumentations takes 0.3 ms to be made.
    for axis in (1, 0):
        if random.random() < ranges.flip_probability:
            image = np.flip(image, axis)
    return np.ascontiguousarray(image)


def affine(image: Grey, ranges: Ranges, random: np.random.Generator) -> Grey:
    """Rotate, scale, shear (both axes) and shift about the centre, each uniformly in its range."""
    move = albumentations.Affine(
        rotate=(-ranges.rotation_deg, ranges.rotation_deg),
        translate_percent=(-ranges.translation, ranges.translation),
        scale=ranges.scale,
        shear=(-ranges.shear_deg, ranges.shear_deg),
        keep_ratio=True,
        interpolation=cv2.INTER_LINEAR,
        p=1.0,
    )
    # A fresh composition a call, because it holds state that loader threads would share.
    compose = albumentations.Compose([move], seed=int(random.integers(2**32)))
    return np.ascontiguousarray(compose(image=image)["image"], np.uint8)


def elastic(image: Grey, ranges: Ranges, random: np.random.Generator) -> Grey:
    """Move each pixel along a smooth random field.

    The field is noise blurred with ``elastic_sigma_px``, scaled so that its largest step is ``elastic_alpha_px``.
    Unscaled, as in common libraries, the paper's α = 10 and σ = 15 would move pixels by about 0.1: nothing.
    """
    if ranges.elastic_alpha_px == 0:
        return image
    num_rows, num_columns = image.shape
    down, across = (_smooth_field(image.shape, ranges, random) for _ in range(2))
    across += np.arange(num_columns, dtype=np.float32)
    down += np.arange(num_rows, dtype=np.float32)[:, None]
    return np.asarray(cv2.remap(image, across, down, cv2.INTER_LINEAR), np.uint8)


def _smooth_field(shape: tuple[int, ...], ranges: Ranges, random: np.random.Generator) -> NDArray[np.float32]:
    # A field this smooth is the same drawn at every third pixel (σ = 15) and interpolated: its spread, slope and
    # correlation agree within 5 % (tests/shared/data/test_augment.py), at a seventh of the time.
    step = max(int(ranges.elastic_sigma_px / _DRAWN_PER_SIGMA), 1)
    noise = random.uniform(-1, 1, (-(-shape[0] // step), -(-shape[1] // step))).astype(np.float32)
    field = cv2.GaussianBlur(noise, (0, 0), ranges.elastic_sigma_px / step)
    full: NDArray[np.float32] = np.asarray(cv2.resize(field, shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    full *= ranges.elastic_alpha_px / max(float(full.max()), -float(full.min()))
    return full
