"""Distillation as in the authors' released code, and outcomes of which only some years are known."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import log_loss

from mammofed_shared.losses.distillation import bernoulli_rows, squared_rows, teacher_logits
from mammofed_shared.losses.survival import censored_rows

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/d_kd_losses.json").read_text())
STUDENT, TEACHER, LABEL = (torch.tensor(GOLDEN[name])[:, None] for name in ("student_logit", "teacher_logit", "y"))


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"T={case['T']} alpha={case['alpha']}")
def test_distillation_gives_the_authors_values(case: dict[str, Any]) -> None:
    hard = censored_rows(STUDENT, LABEL, torch.ones_like(LABEL, dtype=torch.bool)).mean()
    for name, rows in (("kd", bernoulli_rows), ("mse", squared_rows)):
        soft = rows(STUDENT, TEACHER, case["T"]).mean()
        loss = case["alpha"] * soft + (1 - case["alpha"]) * hard
        assert float(loss) == pytest.approx(case[name], rel=1e-6)


def test_nothing_is_to_be_learned_from_a_teacher_that_says_the_same() -> None:
    for rows in (bernoulli_rows, squared_rows):
        assert rows(TEACHER, TEACHER, 2.0) == pytest.approx(torch.zeros(12), abs=1e-6)


def test_a_teacher_that_is_certain_has_finite_logits() -> None:
    risk = torch.tensor([[0.0, 0.5, 1.0]])
    assert torch.sigmoid(teacher_logits(risk)) == pytest.approx(risk, abs=2e-6)
    assert teacher_logits(risk).isfinite().all()


def test_only_the_years_that_are_known_count() -> None:
    logits = torch.tensor([[-1.0, 0.5, 2.0], [0.3, 0.4, 0.5], [1.0, 1.0, 1.0]])
    labels = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, float("nan")], [float("nan")] * 3])
    known = torch.tensor([[True, True, True], [True, True, False], [False] * 3])
    labels = labels.nan_to_num(7.0)  # whatever stands where nobody knows
    rows = censored_rows(logits, labels, known)

    for row, num in ((0, 3), (1, 2)):
        risk = torch.sigmoid(logits[row, :num]).double().numpy()
        expected = log_loss(labels[row, :num].numpy(), risk, labels=[0, 1])
        assert float(rows[row]) == pytest.approx(expected, rel=1e-6)
    assert rows[2] == 0
