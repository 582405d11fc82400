"""The MVS loss against the authors' released code and against the paper's formula."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mammofed_shared.losses.contrastive import info_nce, mvs_loss

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = json.loads((GOLDEN / "a_mvs_loss.json").read_text())["cases"]
SETS = ("I1", "I2", "T1", "T2")


def unit_rows(seed: int, count: int, dimensions: int) -> list[Tensor]:
    """The golden inputs: image, image view, text, text view; rows of length 1."""
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(4):
        rows = random.standard_normal((count, dimensions)).astype(np.float32)
        drawn.append(torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True)))
    return drawn


@pytest.mark.parametrize("case", [case for case in CASES if case["label_smoothing"] == 0])
def test_reference_variant_equals_the_released_code(case: dict[str, Any]) -> None:
    sets = [rows.requires_grad_() for rows in unit_rows(case["seed"], case["B"], case["D"])]
    log_scale = torch.tensor(case["logit_scale"]).log().requires_grad_()

    loss = mvs_loss(*sets, log_scale.exp(), variant="reference", text_text_weight=0.5)
    loss.total.backward()

    assert loss.total.item() == pytest.approx(case["loss_total"], rel=2e-5)
    assert loss.image_text.item() == pytest.approx((case["loss_i2t"] + case["loss_t2i"]) / 2, rel=2e-5)
    assert loss.image_image.item() == pytest.approx(case["loss_i2i"], rel=2e-5, abs=1e-7)
    assert loss.text_text.item() == pytest.approx(0.5 * case["loss_t2t"], rel=2e-5)
    assert log_scale.grad.item() == pytest.approx(case["grad_log_scale"], rel=5e-5, abs=1e-6)
    for name, rows in zip(SETS, sets, strict=True):
        assert rows.grad.norm().item() == pytest.approx(case["grad_norm"][name], rel=5e-5)


@pytest.mark.parametrize("case", [case for case in CASES if case["label_smoothing"] == 0])
def test_each_directed_term_equals_the_released_code(case: dict[str, Any]) -> None:
    sets = dict(zip(SETS, unit_rows(case["seed"], case["B"], case["D"]), strict=True))
    scale = torch.tensor(case["logit_scale"])

    for pair, expected in case["pair_ce"].items():
        query, key = pair.split("->")
        assert float(info_nce(sets[query], sets[key], scale).mean()) == pytest.approx(expected, rel=2e-5, abs=1e-6)


def test_paper_variant_is_the_sum_of_all_ordered_pairs_with_text_pairs_halved() -> None:
    case = CASES[4]
    sets = unit_rows(case["seed"], case["B"], case["D"])

    loss = mvs_loss(*sets, torch.tensor(case["logit_scale"]), variant="paper", text_text_weight=0.5)

    assert len(case["pair_ce"]) == 12
    weights = {pair: 0.5 if {pair[0], pair[4]} == {"T"} else 1.0 for pair in case["pair_ce"]}
    expected = sum(weights[pair] * value for pair, value in case["pair_ce"].items())
    assert loss.total.item() == pytest.approx(expected, rel=2e-5)
    assert loss.total.item() == pytest.approx(float(loss.image_text + loss.image_image + loss.text_text), rel=1e-6)


def test_gradients_equal_the_released_code() -> None:
    golden = np.load(GOLDEN / "a_mvs_loss_grads_B4_D8.npz")
    names = ("image", "image_view", "text", "text2")
    sets = [torch.from_numpy(golden[name]).requires_grad_() for name in names]
    log_scale = torch.from_numpy(golden["log_scale"]).requires_grad_()

    mvs_loss(*sets, log_scale.exp(), variant="reference", text_text_weight=0.5).total.backward()

    for name, rows in zip(names, sets, strict=True):
        np.testing.assert_allclose(rows.grad.numpy(), golden[f"g_{name}"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_scale.grad.numpy(), golden["g_log_scale"], rtol=1e-5)


def test_text_pairs_count_by_their_weight() -> None:
    sets = unit_rows(1, 4, 8)

    light = mvs_loss(*sets, torch.tensor(10.0), text_text_weight=0.0)
    heavy = mvs_loss(*sets, torch.tensor(10.0), text_text_weight=2.0)

    assert float(light.text_text) == 0.0
    assert float(heavy.total) > float(light.total)
    assert float(heavy.image_text) == float(light.image_text)
