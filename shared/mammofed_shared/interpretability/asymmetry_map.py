"""Where the breasts differ most to AsymMIRAI: its map over the cells, and the window that makes the score.

Source: Mammo-FM, AsymMIRAI w/ Mammo-FM, equations 3 to 6: Δ has one number for each place of the (a, b) window, and
their maximum is the view's score. All stored images have the chest wall left, so one window has the same place in both
breasts.

Shapes: P = 2 pairs in the order of ``data.risk.PAIRS``; h rows and w columns of the encoder's map, h' and w' places of
the window; H rows and W columns of an image.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammofed_shared.config.features import AsymmetryFeatures
from mammofed_shared.data.risk import PAIRS
from mammofed_shared.exam import Laterality, View
from mammofed_shared.interpretability.exam_maps import ExamMaps
from mammofed_shared.interpretability.pointing import Box
from mammofed_shared.models.asymmirai import AsymmetryHead, pooled_difference


@dataclass(frozen=True, slots=True)
class AsymmetryMap:
    """One view of both breasts.

    ``score`` is the maximum of Δ; ``cells`` (h, w) has at each cell the highest Δ of the windows that hold it, 0 where
    none does; ``window`` is the window of the maximum in pixels of the stored images.
    """

    score: float
    cells: NDArray[np.float32]
    window: Box


@dataclass(frozen=True, slots=True)
class AsymmetryExplanation:
    """Risks of the years 1 to 5, 0..1, and the map of each view that was taken of both breasts. The view with the
    higher score drives the risk, which is made of their mean."""

    risks: tuple[float, ...]
    maps: Mapping[View, AsymmetryMap]


@torch.no_grad()
def explain_by_asymmetry(head: AsymmetryHead, kind: AsymmetryFeatures, exam: ExamMaps) -> AsymmetryExplanation | None:
    """Where the breasts of an exam differ; None if no view was taken of both.

    Args:
        kind: window and stride of the run.
    """
    has_pair = [all((side, view) in exam.views for side in Laterality) for view in PAIRS]
    if not any(has_pair):
        return None
    pairs = [_features(head, kind, exam, view) if found else None for view, found in zip(PAIRS, has_pair, strict=True)]
    blank = torch.zeros_like(next(pair for pair in pairs if pair is not None))
    features = torch.stack([blank if pair is None else pair for pair in pairs])[None]
    risks = torch.sigmoid(head(features, torch.tensor([has_pair], device=features.device)).double())[0]
    delta_Phw = head.maps(features)[0].cpu().numpy()
    maps = {
        view: asymmetry_map(delta_hw, kind, exam.map_size, exam.image_size)
        for view, delta_hw, found in zip(PAIRS, delta_Phw, has_pair, strict=True)
        if found
    }
    return AsymmetryExplanation(tuple(risks.tolist()), maps)


def _features(head: AsymmetryHead, kind: AsymmetryFeatures, exam: ExamMaps, view: View) -> Tensor:
    """What the head reads of one pair: M (C, h', w'), or in the order ``reference`` the maps of both sides (2, C, h,
    w)."""
    sides_2Chw = exam.maps[[exam.views.index((side, view)) for side in (Laterality.R, Laterality.L)]]
    if head.order == "reference":
        return sides_2Chw
    return pooled_difference(sides_2Chw[:1], sides_2Chw[1:], kind.window, kind.stride)[0]


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
