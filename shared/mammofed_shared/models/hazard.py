"""Risk of several years as a sum of hazards that are never negative, so that it never falls with the year.

Additive hazard layer of MIRAI (Yala et al., Toward robust mammography-based models for breast cancer risk, 2021):
logit of year t = base(h) + sum of relu(hazard_i(h)) over i = 1 … t.

Shapes: B exams, F features, T years.
"""

from typing import cast

import torch
from torch import Tensor, nn


class HazardHead(nn.Module):
    """Cumulative logits of ``num_years`` years from a vector of ``num_features`` numbers.

    Its parameters bear MIRAI's names.
    """

    def __init__(self, num_features: int, num_years: int = 5) -> None:
        super().__init__()
        self.hazard_fc = nn.Linear(num_features, num_years)
        self.base_hazard_fc = nn.Linear(num_features, 1)

    def forward(self, hidden_BF: Tensor) -> Tensor:
        """Logits (B, T); the sigmoid of the t-th is the risk of the first t years."""
        hazard_BT = torch.relu(self.hazard_fc(hidden_BF))
        return cast(Tensor, self.base_hazard_fc(hidden_BF)) + hazard_BT.cumsum(dim=1)
