"""Where the breasts differ most to AsymMIRAI: its map over the cells, and the window that makes the score.

Source: Mammo-FM, AsymMIRAI w/ Mammo-FM, equations 3 to 6: Δ has one number for each place of the (a, b) window, and
their maximum is the view's score. All stored images have the chest wall left, so one window has the same place in both
breasts.

Shapes: h rows and w columns of the encoder's map, h' and w' places of the window; H rows and W columns of an image.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.config.features import AsymmetryFeatures
from mammofed_shared.interpretability.pointing import Box


@dataclass(frozen=True, slots=True)
class AsymmetryMap:
    """One view of both breasts.

    ``score`` is the maximum of Δ; ``cells`` (h, w) has at each cell the highest Δ of the windows that hold it, 0 where
    none does; ``window`` is the window of the maximum in pixels of the stored images.
    """

    score: float
    cells: NDArray[np.float32]
    window: Box


def asymmetry_map(
    delta: NDArray[np.float32], kind: AsymmetryFeatures, map_size: tuple[int, int], image_size: tuple[int, int]
) -> AsymmetryMap:
    """The map of a view and its window; of several equal maxima the first, row by row.

    Args:
        delta: Δ (h', w') of the head.
        kind: window and stride.
        map_size: (h, w).
        image_size: (H, W).
    """
    row, column = (int(place) for place in np.unravel_index(int(delta.argmax()), delta.shape))
    top, left = row * kind.stride[0], column * kind.stride[1]
    down, across = image_size[0] / map_size[0], image_size[1] / map_size[1]
    window = Box(top * down, left * across, (top + kind.window[0]) * down, (left + kind.window[1]) * across)
    return AsymmetryMap(float(delta[row, column]), _over_cells(delta, kind, map_size), window)


def _over_cells(delta: NDArray[np.float32], kind: AsymmetryFeatures, map_size: tuple[int, int]) -> NDArray[np.float32]:
    cells = np.zeros(map_size, np.float32)  # Δ is a length: never below 0
    # Each cell of a window, at all places of the window at once.
    for row in range(kind.window[0]):
        for column in range(kind.window[1]):
            of_cell = cells[
                row : row + (delta.shape[0] - 1) * kind.stride[0] + 1 : kind.stride[0],
                column : column + (delta.shape[1] - 1) * kind.stride[1] + 1 : kind.stride[1],
            ]
            np.maximum(of_cell, delta, out=of_cell)
    return cells
