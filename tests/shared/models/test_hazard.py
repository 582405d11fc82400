"""The additive hazard layer: equal to MIRAI's, and its risk never falls with the year."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mammofed_shared.models.hazard import HazardHead

GOLDEN = Path(__file__).parents[2] / "golden/e_mirai_hazard.npz"


def test_logits_and_probabilities_are_those_of_mirai() -> None:
    golden = {name: torch.from_numpy(values) for name, values in np.load(GOLDEN).items()}
    head = HazardHead(8)
    head.load_state_dict({name.replace("__", "."): golden[name] for name in golden if "fc__" in name})

    logit = head(golden["x"])

    torch.testing.assert_close(logit, golden["cum_logit"], rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.sigmoid(logit), golden["prob"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_risk_never_falls_with_the_year_whatever_the_weights(scale: float) -> None:
    torch.manual_seed(0)
    head = HazardHead(6, num_years=7)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=scale)

    risk: Tensor = torch.sigmoid(head(scale * torch.randn(500, 6)))

    assert risk.shape == (500, 7)
    assert bool((risk.diff(dim=1) >= 0).all())
    assert risk.diff(dim=1).max() > 0, "and it does rise"
