"""The learning-rate curve, weight decay groups, and moments that survive a visit."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from mammofed_shared.training.optim import (
    parameter_groups,
    warmup_cosine,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "b_warmup_cosine_lr.json").read_text())["cases"]


@pytest.mark.parametrize("name", GOLDEN)
def test_curve_over_progress_equals_the_released_code_over_steps(name: str) -> None:
    case = GOLDEN[name]
    total, warmup = case["total_steps"], case["warmup_steps"]
    expected = case["lr_used_at_optimizer_step_k"]
    assert len(expected) == total

    found = [warmup_cosine(case["base_lr"], step / total, warmup / total) for step in range(total)]

    assert found == pytest.approx(expected, abs=1e-12)


def test_curve_without_warmup_starts_at_its_peak_and_ends_at_zero() -> None:
    assert warmup_cosine(1.0, 0.0, 0.0) == 1.0
    assert warmup_cosine(1.0, 1.0, 0.0) == pytest.approx(0.0, abs=1e-12)


def test_curve_that_is_all_warmup_only_rises() -> None:
    assert [warmup_cosine(2.0, progress, 1.0) for progress in (0.0, 0.5, 1.0)] == [0.0, 1.0, 2.0]


class _Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)
        self.log_scale = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(x)) * self.log_scale.exp()


def test_norms_biases_and_scale_have_no_weight_decay() -> None:
    model = _Tiny()

    decayed, spared = parameter_groups(model, 0.1)

    assert [parameter.shape for parameter in decayed["params"]] == [(3, 4)]
    assert decayed["weight_decay"] == 0.1
    assert any(parameter is model.log_scale for parameter in spared["params"])
    assert len(spared["params"]) == 4
    assert spared["weight_decay"] == 0.0
