"""A synthetic second view of a mammogram: flips, affine map, elastic map (paper: instance augmentation).

Ranges are symmetric about no change; the authors' released code moves every image by the full range instead.
Images are (height, width) uint8; what comes in from outside is 0, as the background is.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]


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
    if random.random() < ranges.flip_probability:
        image = image[:, ::-1]
    if random.random() < ranges.flip_probability:
        image = image[::-1]
    return np.ascontiguousarray(image)


def affine(image: Grey, ranges: Ranges, random: np.random.Generator) -> Grey:
    """Rotate, scale, shear and shift about the centre, each uniformly in its range."""
    height, width = image.shape
    angle = np.deg2rad(random.uniform(-ranges.rotation_deg, ranges.rotation_deg))
    shear = np.tan(np.deg2rad(random.uniform(-ranges.shear_deg, ranges.shear_deg)))
    scale = random.uniform(*ranges.scale)
    shift = random.uniform(-ranges.translation, ranges.translation, 2) * (width, height)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = scale * rotation @ np.array([[1.0, shear], [0.0, 1.0]])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    matrix = np.column_stack([linear, centre + shift - linear @ centre])
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR), np.uint8)


def elastic(image: Grey, ranges: Ranges, random: np.random.Generator) -> Grey:
    """Move each pixel along a smooth random field.

    The field is noise blurred with ``elastic_sigma_px``, scaled so that its largest step is ``elastic_alpha_px``.
    Unscaled, as in common libraries, the paper's α = 10 and σ = 15 would move pixels by about 0.1: nothing.
    """
    if ranges.elastic_alpha_px == 0:
        return image
    rows, columns = np.indices(image.shape, dtype=np.float32)
    steps = [_smooth_field(image.shape, ranges, random) for _ in range(2)]
    moved = cv2.remap(image, columns + steps[0], rows + steps[1], cv2.INTER_LINEAR)
    return np.asarray(moved, np.uint8)


def _smooth_field(shape: tuple[int, ...], ranges: Ranges, random: np.random.Generator) -> NDArray[np.float32]:
    noise = random.uniform(-1, 1, shape).astype(np.float32)
    field = cv2.GaussianBlur(noise, (0, 0), ranges.elastic_sigma_px)
    return np.asarray(field * (ranges.elastic_alpha_px / np.abs(field).max()), np.float32)
