"""AsymMIRAI's map and window, of differences whose place is known."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from mammofed_shared.config.features import AsymmetryFeatures
from mammofed_shared.data.risk import VIEWS
from mammofed_shared.exam import Laterality, View
from mammofed_shared.interpretability.asymmetry_map import asymmetry_map, explain_by_asymmetry
from mammofed_shared.interpretability.exam_maps import ExamMaps, exam_maps
from mammofed_shared.interpretability.pointing import Box
from mammofed_shared.models.asymmirai import AsymmetryHead
from planted import PlantedImageEncoder, planted_exam

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


@pytest.fixture
def head() -> AsymmetryHead:
    return AsymmetryHead(3).eval()


def planted_maps(folder: Path, views: Sequence[tuple[Laterality, View]] = VIEWS) -> ExamMaps:
    """A bright patch in the left breast alone, in both views."""
    patches = {(Laterality.L, View.CC): (2, 1), (Laterality.L, View.MLO): (1, 2)}
    encoder: Any = PlantedImageEncoder()
    return exam_maps(encoder, planted_exam(folder, patches, views), torch.device("cpu"))


def test_the_planted_patch_is_where_the_breasts_differ(head: AsymmetryHead, tmp_path: Path) -> None:
    found = explain_by_asymmetry(head, AsymmetryFeatures(window=(1, 1)), planted_maps(tmp_path))

    assert found is not None
    assert found.maps[View.CC].window == Box(32, 8, 48, 16)
    assert found.maps[View.MLO].window == Box(16, 16, 32, 24)
    assert np.count_nonzero(found.maps[View.CC].cells > 0.1) == 1
    assert list(found.risks) == sorted(found.risks)


def test_the_risk_is_that_of_the_mean_of_both_scores(head: AsymmetryHead, tmp_path: Path) -> None:
    found = explain_by_asymmetry(head, AsymmetryFeatures(window=(2, 2)), planted_maps(tmp_path))

    assert found is not None
    score = np.mean([item.score for item in found.maps.values()])
    logit = head.log_scale.exp().item() * score + head.first_offset.item()
    assert found.risks[0] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)


def test_a_view_of_one_breast_has_no_map(head: AsymmetryHead, tmp_path: Path) -> None:
    views = [place for place in VIEWS if place != (Laterality.R, View.MLO)]
    found = explain_by_asymmetry(head, AsymmetryFeatures(window=(1, 1)), planted_maps(tmp_path, views))
    left_only = [(Laterality.L, View.CC), (Laterality.L, View.MLO)]

    assert found is not None
    assert set(found.maps) == {View.CC}
    assert explain_by_asymmetry(head, AsymmetryFeatures(window=(1, 1)), planted_maps(tmp_path, left_only)) is None


def test_the_released_codes_order_reads_the_maps_of_both_sides(tmp_path: Path) -> None:
    reference = AsymmetryHead(3, order="reference", window=(1, 1)).eval()
    found = explain_by_asymmetry(reference, AsymmetryFeatures(window=(1, 1)), planted_maps(tmp_path))

    assert found is not None
    assert found.maps[View.CC].window == Box(32, 8, 48, 16)
