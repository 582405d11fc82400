"""AsymMIRAI w/ Mammo-FM: risk from the difference of the two breasts, place by place (paper: AsymMIRAI; Donnelly et al.
2024).

    D = |Z_right − Z_left|     M = max-pooled D     Δ_hw = ‖W_view M_:,h,w‖₂     p_view = max Δ     R = mean p_view

for the order ``paper``. ``reference`` is the released code's: W on each side first, then difference, pooling and norm.
Every stored image has its chest wall left, so the two sides lie on each other as they are.

Shapes: B exams, P = 2 pairs in the order of ``PAIRS``, S = 2 sides (right, left), C channels, h × w places of the
encoder's map, H × W places after pooling, T years.
"""

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from mammofed_shared.models.mirai import NUM_YEARS, PROJECTIONS

PAIRS = PROJECTIONS
Order: TypeAlias = Literal["paper", "reference"]
_FIRST_OFFSET = -3.0
_STEP_OFFSET = -1.0
"""Of the logit of year 1, and (before softplus) of each year to the next: about 5 % to 20 % where R is small."""


Places: TypeAlias = tuple[int, int]
"""Rows and columns of a map."""


def pooled_difference(right_BCHW: Tensor, left_BCHW: Tensor, window: Places, stride: Places) -> Tensor:
    """M: the largest absolute difference of the sides in each window, (B, C, H, W)."""
    return functional.max_pool2d((right_BCHW - left_BCHW).abs(), window, stride)


class AsymmetryHead(nn.Module):
    """Logits of the risk of 1 to 5 years from what tells the breasts apart.

    W starts as the identity over √C, so that R begins as a root mean square, whatever the number of channels. The
    calibration (logit of year t = exp(``log_scale``) · R + an offset that rises with t) is learned with it and travels
    with it, so risk never falls with the year.

    Args:
        num_channels: of the encoder's map.
        order: which features ``forward`` takes, see there.
        window, stride: of the pooling, in places of the map; in the order ``paper`` the features bring it.
    """

    def __init__(
        self,
        num_channels: int,
        *,
        order: Order = "paper",
        window: Places = (5, 5),
        stride: Places = (1, 1),
    ) -> None:
        super().__init__()
        self.order: Order = order
        self.window = window
        self.stride = stride
        self.weights = nn.ParameterDict(
            {view: nn.Parameter(torch.eye(num_channels) / math.sqrt(num_channels)) for view in PAIRS}
        )
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.first_offset = nn.Parameter(torch.tensor(_FIRST_OFFSET))
        self.offset_steps = nn.Parameter(torch.full((NUM_YEARS - 1,), _STEP_OFFSET))

    def forward(self, features: Tensor, has_pair_BP: Tensor) -> Tensor:
        """Logits (B, T); the sigmoid of the t-th is the risk of the first t years.

        Args:
            features: ``paper``: M (B, P, C, H, W), as ``pooled_difference`` makes it; ``reference``: the maps of both
                sides (B, P, S, C, h, w). What stands for a missing pair is not looked at.
            has_pair_BP: bool, at least one pair of each exam.
        """
        rises_T = functional.pad(functional.softplus(self.offset_steps), (1, 0)).cumsum(0)
        raw_B1 = self.raw(features, has_pair_BP)[:, None]
        return self.log_scale.exp() * raw_B1 + self.first_offset + rises_T

    def raw(self, features: Tensor, has_pair_BP: Tensor) -> Tensor:
        """R of each exam, (B,): the mean over its pairs of the largest Δ."""
        shown = has_pair_BP[(..., *[None] * (features.ndim - 2))]
        largest_BP = self.maps(torch.where(shown, features, torch.zeros_like(features))).amax(dim=(2, 3))
        weight_BP = has_pair_BP.to(largest_BP.dtype)
        return (largest_BP * weight_BP).sum(dim=1) / weight_BP.sum(dim=1)

    def maps(self, features: Tensor) -> Tensor:
        """Δ of each pair before its maximum, (B, P, H, W)."""
        return torch.stack([self._map(features[:, pair], view) for pair, view in enumerate(PAIRS)], dim=1)

    def _map(self, features: Tensor, view: str) -> Tensor:
        weight_CC = self.weights[view]
        if self.order == "reference":
            right_BCHW, left_BCHW = (self._projected(weight_CC, features[:, side]) for side in (0, 1))
            moved_BCHW = pooled_difference(right_BCHW, left_BCHW, self.window, self.stride)
        else:
            moved_BCHW = self._projected(weight_CC, features)
        moved_BCHW = moved_BCHW.float()  # under autocast squares would overflow, and R have equal values by rounding
        # A norm has no gradient at 0, where both breasts are alike to the bit.
        return (moved_BCHW.square().sum(dim=1) + torch.finfo(moved_BCHW.dtype).tiny).sqrt()

    def _projected(self, weight_CC: Tensor, map_BCHW: Tensor) -> Tensor:
        return torch.einsum("dc,bchw->bdhw", weight_CC, map_BCHW)
