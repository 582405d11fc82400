"""The head that compares the breasts: the authors' values in every mode, and what must hold of any comparison."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mammofed_shared.models.asymmirai import PAIRS, AsymmetryHead, Order, pooled_difference

GOLDEN = Path(__file__).parents[2] / "golden/d_asymmirai.npz"
BOTH = torch.ones(3, 2, dtype=torch.bool)
WINDOW = (2, 2)


def _golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as found:
        return {name: torch.from_numpy(found[name]) for name in found.files}


def _sides(golden: dict[str, Tensor], *, mirrored: bool = False) -> Tensor:
    """(B, P, S, C, h, w); mirrored: one side as it is stored when chest walls are not harmonised."""
    pairs = []
    for view in ("cc", "mlo"):
        right = golden[f"in/r_{view}"]
        pairs.append(torch.stack([right.flip(3) if mirrored else right, golden[f"in/l_{view}"]], dim=1))
    return torch.stack(pairs, dim=1)


def _head(golden: dict[str, Tensor], weights: str, order: Order, stride: int) -> AsymmetryHead:
    """With the golden's weights and the reference's calibration, (R − 3) / 0.5 there."""
    head = AsymmetryHead(6, order=order, window=WINDOW, stride=(stride, stride))
    with torch.no_grad():
        for view in PAIRS:
            name = view.lower()
            matrix = {"matrix": golden[f"in/W_{name}"], "vector": torch.diag(golden[f"in/v_{name}"])}
            head.weights[view].copy_(matrix.get(weights, torch.eye(6)))
        head.log_scale.fill_(math.log(2))
        head.first_offset.fill_(-6)
    return head


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("weights", ["matrix", "vector", "none"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_reference_order_gives_the_authors_values(stride: int, weights: str, mirrored: bool) -> None:
    golden = _golden()
    key = f"flex{int(stride == 1)}_{weights}_align{'latent' if mirrored else 'None'}"
    head, sides = _head(golden, weights, "reference", stride), _sides(golden, mirrored=mirrored)
    with torch.no_grad():
        maps, raw, logits = head.maps(sides), head.raw(sides, BOTH), head(sides, BOTH)

    torch.testing.assert_close(maps[:, 0], golden[f"{key}/heat_cc"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps[:, 1], golden[f"{key}/heat_mlo"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(raw, golden[f"{key}/raw"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits[:, 0], golden[f"{key}/scaled"], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(logits[:, 0].sigmoid(), golden[f"{key}/prob"], atol=1e-5, rtol=1e-5)


def _paper_features(golden: dict[str, Tensor]) -> Tensor:
    sides = _sides(golden)
    return torch.stack([pooled_difference(sides[:, p, 0], sides[:, p, 1], WINDOW, (1, 1)) for p in range(2)], dim=1)


def test_the_papers_order_pools_before_it_weighs() -> None:
    golden = _golden()
    raw = _head(golden, "matrix", "paper", 1).raw(_paper_features(golden), BOTH)
    torch.testing.assert_close(raw, golden["paper_eq_flex_stride1/raw"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("order", ["paper", "reference"])
def test_a_missing_pair_drops_out_of_the_mean(order: Order) -> None:
    golden = _golden()
    head = _head(golden, "matrix", order, 1)
    features = _paper_features(golden) if order == "paper" else _sides(golden)
    has_pair = BOTH.clone()
    has_pair[1, 0] = False
    other = features.clone()
    other[1, 0] = float("nan")
    raw = head.raw(other, has_pair)

    assert torch.equal(raw, head.raw(features, has_pair))
    assert torch.equal(raw[1], head.maps(features)[1, 1].max())
    if order == "reference":
        torch.testing.assert_close(raw, golden["blankCCexam1/raw"], atol=1e-5, rtol=1e-5)


def test_exchanging_left_and_right_leaves_the_score_unchanged() -> None:
    golden = _golden()
    head, sides = _head(golden, "matrix", "reference", 1), _sides(golden)
    assert torch.equal(head(sides, BOTH), head(sides.flip(2), BOTH))
    right, left = sides[:, 0, 0], sides[:, 0, 1]
    assert torch.equal(pooled_difference(right, left, WINDOW, (1, 1)), pooled_difference(left, right, WINDOW, (1, 1)))


def test_risk_never_falls_with_the_year_and_rises_with_asymmetry() -> None:
    head = AsymmetryHead(6)
    torch.nn.init.normal_(head.offset_steps, std=5)
    features = torch.rand(3, 2, 6, 4, 4)
    logits = head(features, BOTH)
    assert (logits.diff(dim=1) >= 0).all()
    assert (head(2 * features, BOTH) > logits).all()


def test_large_differences_stay_finite_in_half_precision() -> None:
    head = AsymmetryHead(64)
    features = 500 * torch.rand(3, 2, 64, 4, 4)
    with torch.autocast("cpu", torch.float16):
        raw = head.raw(features, BOTH)

    assert raw.dtype == torch.float32
    assert torch.allclose(raw, head.raw(features, BOTH), rtol=5e-3)


def test_equal_breasts_have_a_gradient_that_is_finite() -> None:
    head = AsymmetryHead(6)
    head(torch.zeros(3, 2, 6, 4, 4), BOTH).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in head.parameters())


def test_the_papers_head_is_34_mb() -> None:
    num_values = sum(parameter.numel() for parameter in AsymmetryHead(2048).parameters())
    assert 33e6 < 4 * num_values < 34e6
