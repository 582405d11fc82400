"""AsymMIRAI's map and window, of differences whose place is known."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from mammofed_shared.config.features import AsymmetryFeatures
from mammofed_shared.interpretability.asymmetry_map import asymmetry_map
from mammofed_shared.interpretability.pointing import Box

KIND = AsymmetryFeatures(window=(3, 2), stride=(2, 1))


def delta_of(difference: torch.Tensor, kind: AsymmetryFeatures) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Δ of a difference of one channel with W = 1."""
    pooled: torch.Tensor = F.max_pool2d(difference[None, None], kind.window, kind.stride)
    return pooled[0, 0].numpy()


def test_the_window_is_where_the_difference_was_planted() -> None:
    difference = torch.full((7, 5), 0.1)
    difference[5, 3] = 2.0
    found = asymmetry_map(delta_of(difference, KIND), KIND, (7, 5), (70, 100))

    assert found.score == 2.0
    assert found.window == Box(40, 40, 70, 80), "rows 4 to 6, columns 2 and 3: the first of the windows that hold it"


def test_a_cell_has_the_highest_number_of_the_windows_that_hold_it() -> None:
    difference = torch.arange(12.0).reshape(4, 3)
    kind = AsymmetryFeatures(window=(2, 2))
    delta = delta_of(difference, kind)
    cells = asymmetry_map(delta, kind, (4, 3), (4, 3)).cells

    assert delta.tolist() == [[4, 5], [7, 8], [10, 11]]
    assert cells.tolist() == [[4, 5, 5], [7, 8, 8], [10, 11, 11], [10, 11, 11]]


@pytest.mark.parametrize("kind", [KIND, AsymmetryFeatures(window=(2, 3), stride=(3, 3))])
def test_the_maps_maximum_is_the_score_and_lies_in_the_window(kind: AsymmetryFeatures) -> None:
    difference = torch.rand(9, 7, generator=torch.Generator().manual_seed(2))
    found = asymmetry_map(delta_of(difference, kind), kind, (9, 7), (9, 7))

    row, column = np.unravel_index(found.cells.argmax(), found.cells.shape)
    assert found.cells.max() == found.score
    assert found.window.top <= row < found.window.bottom
    assert found.window.left <= column < found.window.right
