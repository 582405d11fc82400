"""The pointing game, on maps whose highest point is known."""

import numpy as np
import pytest

from mammofed_shared.interpretability.pointing import Box, in_boxes, pointing_hit, random_hit

BREAST = np.ones((2, 4, 4), np.bool_)
BOX = [[Box(1, 1, 3, 3)], []]


def peak(view: int, row: int, column: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    maps = np.zeros((2, 4, 4), np.float32)
    maps[view, row, column] = 1
    return maps


def test_a_box_holds_the_pixels_whose_centre_is_inside() -> None:
    inside = in_boxes([Box(0.4, 0.6, 2, 2.5)], (3, 4))

    assert np.argwhere(inside).tolist() == [[0, 1], [1, 1]]


def test_a_map_hits_if_its_highest_point_is_in_the_box_of_that_view() -> None:
    assert pointing_hit(peak(0, 2, 1), BOX, BREAST) == 1
    assert pointing_hit(peak(0, 3, 1), BOX, BREAST) == 0
    assert pointing_hit(peak(1, 2, 1), BOX, BREAST) == 0, "the same place in the view where nothing was planted"


def test_several_highest_points_hit_in_proportion() -> None:
    maps = peak(0, 2, 1) + peak(0, 0, 0) + peak(1, 2, 1) + peak(1, 0, 3)

    assert pointing_hit(maps, BOX, BREAST) == 0.25


def test_a_point_outside_the_breast_does_not_count() -> None:
    breast = BREAST.copy()
    breast[0, 0] = False

    assert pointing_hit(peak(0, 0, 0) * 2 + peak(0, 1, 1), BOX, breast) == 1
    with pytest.raises(ValueError, match="all pixels are background"):
        pointing_hit(peak(0, 0, 0), BOX, np.zeros_like(BREAST))


def test_chance_is_the_share_of_the_breast_in_the_boxes() -> None:
    breast = BREAST.copy()
    breast[0, :2] = False  # half of one view, and with it half of the box

    assert random_hit(BOX, BREAST) == 4 / 32
    assert random_hit(BOX, breast) == 2 / 24
    assert random_hit([[], []], BREAST) == 0


def test_chance_is_what_random_points_hit() -> None:
    random = np.random.default_rng(1)
    hits = [pointing_hit(random.random((2, 4, 4), np.float32), BOX, BREAST) for _ in range(2000)]

    assert np.mean(hits) == pytest.approx(random_hit(BOX, BREAST), abs=0.03)
