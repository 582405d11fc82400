"""Each augmentation, by the effect that can be seen in the image."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mammofed_shared.data.augment import Ranges, _smooth_field, affine, elastic, flip, synthetic_view

STILL = Ranges(
    flip_probability=0.0,
    rotation_deg=0.0,
    translation=0.0,
    scale=(1.0, 1.0),
    shear_deg=0.0,
    elastic_alpha_px=0.0,
)


def spot(row: int, column: int, size: int = 9) -> NDArray[np.uint8]:
    """A bright square in a dark image of 120 × 80."""
    image = np.zeros((120, 80), np.uint8)
    image[row - size // 2 : row + size // 2 + 1, column - size // 2 : column + size // 2 + 1] = 200
    return image


def centre(image: NDArray[np.uint8]) -> tuple[float, float]:
    rows, columns = np.nonzero(image > 100)
    return float(rows.mean()), float(columns.mean())


def changed(**ranges: object) -> Ranges:
    return Ranges(**{field: getattr(STILL, field) for field in Ranges.__slots__} | ranges)


def test_no_range_leaves_the_image_as_it_is() -> None:
    image = spot(40, 20)

    assert np.array_equal(synthetic_view(image, STILL, np.random.default_rng(0)), image)


def test_flip_mirrors_each_axis_about_half_the_time() -> None:
    ranges = changed(flip_probability=0.5)
    found = [centre(flip(spot(40, 20), ranges, np.random.default_rng(seed))) for seed in range(200)]

    assert set(found) == {(40.0, 20.0), (79.0, 20.0), (40.0, 59.0), (79.0, 59.0)}
    assert sum(row == 79.0 for row, _ in found) == pytest.approx(100, abs=25)


def test_rotation_turns_both_ways_within_its_range() -> None:
    ranges = changed(rotation_deg=20.0)
    angles: list[float] = []
    for seed in range(60):
        row, column = centre(affine(spot(30, 40), ranges, np.random.default_rng(seed)))
        angles.append(np.rad2deg(np.arctan2(column - 39.5, 59.5 - row)))

    assert min(angles) < -10 and max(angles) > 10
    assert max(map(abs, angles)) < 22


def test_translation_moves_both_ways_within_its_range() -> None:
    ranges = changed(translation=0.1)
    moved = [centre(affine(spot(60, 40), ranges, np.random.default_rng(seed))) for seed in range(60)]
    rows, columns = np.array(moved).T - np.array([[60.0], [40.0]])

    assert rows.min() < -6 and rows.max() > 6 and np.abs(rows).max() <= 12.5
    assert columns.min() < -4 and columns.max() > 4 and np.abs(columns).max() <= 8.5


def test_scale_makes_the_image_smaller_and_larger() -> None:
    ranges = changed(scale=(0.8, 1.2))
    areas = [
        int((affine(spot(60, 40, 31), ranges, np.random.default_rng(seed)) > 100).sum()) / 31**2 for seed in range(60)
    ]

    assert min(areas) < 0.8 and max(areas) > 1.25
    assert min(areas) > 0.58 and max(areas) < 1.52


def test_shear_moves_rows_against_each_other_both_ways() -> None:
    ranges = changed(shear_deg=20.0)
    tall = np.zeros((120, 80), np.uint8)
    tall[20:100, 38:43] = 200
    slants = []
    for seed in range(60):
        view = affine(tall, ranges, np.random.default_rng(seed))
        slants.append(centre(view[80:90])[1] - centre(view[30:40])[1])

    assert min(slants) < -10 and max(slants) > 10


def test_elastic_bends_the_image_by_up_to_alpha_pixels() -> None:
    ranges = changed(elastic_alpha_px=6.0)
    columns = np.tile(np.arange(80, dtype=np.uint8) * 3, (120, 1))

    bent = elastic(columns, ranges, np.random.default_rng(3))

    shift = np.abs(bent[10:-10, 10:-10].astype(float) - columns[10:-10, 10:-10]) / 3
    assert 3.0 < shift.max() <= 6.4
    assert shift.mean() > 0.5


def test_an_elastic_field_drawn_at_every_third_pixel_is_like_one_drawn_at_every_pixel() -> None:
    ranges = Ranges(elastic_alpha_px=10.0, elastic_sigma_px=15.0)

    def at_every_pixel(random: np.random.Generator) -> NDArray[np.float32]:
        field = cv2.GaussianBlur(random.uniform(-1, 1, (304, 182)).astype(np.float32), (0, 0), 15.0)
        return field * (10.0 / np.abs(field).max())

    def told(field: NDArray[np.float32]) -> list[float]:
        """Largest and root mean square step, slopes down and across, correlation at the distance σ."""
        power = float((field**2).mean())
        slopes = [float((np.diff(field, axis=axis) ** 2).mean()) ** 0.5 for axis in (0, 1)]
        correlation = float((field[:, 15:] * field[:, :-15]).mean()) / power
        return [float(np.abs(field).max()), power**0.5, *slopes, correlation]

    seeds = range(300)
    wanted = np.mean([told(at_every_pixel(np.random.default_rng(seed))) for seed in seeds], axis=0)
    found = np.mean([told(_smooth_field((304, 182), ranges, np.random.default_rng(seed))) for seed in seeds], axis=0)

    assert found == pytest.approx(wanted, rel=0.05)


def test_equal_generators_give_equal_views_and_others_do_not() -> None:
    image = spot(40, 20, 21)

    first, again, other = (synthetic_view(image, Ranges(), np.random.default_rng(s)) for s in (5, 5, 6))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == image.shape and first.dtype == np.uint8
