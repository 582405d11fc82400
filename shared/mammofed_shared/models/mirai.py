"""MIRAI w/ Mammo-FM: a small transformer over the frozen encoder's vectors of an exam's four views (paper: Risk).

Each view's vector becomes a token; learned embeddings of its time, view and side are added. The layers are pre-norm,
as the paper's; the feed-forward block is as wide as the layer, as in MIRAI (Yala et al. 2021).

Shapes: B exams, V = 4 views in the order of ``VIEWS``, F features of the encoder, W the transformer's width, T years.
"""

from typing import Literal, cast

import torch
from torch import Tensor, nn

from mammofed_shared.models.hazard import HazardHead

SIDES = ("L", "R")
PROJECTIONS = ("CC", "MLO")
VIEWS = tuple((side, projection) for side in SIDES for projection in PROJECTIONS)
"""Order of the views: LCC, LMLO, RCC, RMLO."""
NUM_YEARS = 5
_EMBEDDING = 32
"""Width of each of the three embeddings (paper)."""

Head = Literal["hazard", "logits"]


class MiraiHead(nn.Module):
    """Logits of the risk of 1 to 5 years from the vectors of four views.

    Args:
        num_features: of one view's vector.
        head: ``hazard``, so that risk never falls with the year; ``logits``, five that know nothing of each other.
    """

    def __init__(
        self,
        num_features: int,
        *,
        width: int = 512,
        num_layers: int = 3,
        num_heads: int = 8,
        dropout: float = 0.25,
        head: Head = "hazard",
    ) -> None:
        super().__init__()
        # Not in the paper. The scale of frozen features is their encoder's: small ones drown in the places' embeddings,
        # and the head learns for ten epochs to say the same of everybody (docs/risk.md).
        self.norm = nn.LayerNorm(num_features)
        self.projection = nn.Linear(num_features, width)
        # One time: an exam is scored without earlier ones. The paper's embedding of it is kept, as a learned constant.
        self.time_embedding = nn.Embedding(1, _EMBEDDING)
        self.view_embedding = nn.Embedding(len(PROJECTIONS), _EMBEDDING)
        self.side_embedding = nn.Embedding(len(SIDES), _EMBEDDING)
        self.embedding_projection = nn.Linear(3 * _EMBEDDING, width)
        layer = nn.TransformerEncoderLayer(
            width, num_heads, dim_feedforward=width, dropout=dropout, batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.dropout = nn.Dropout(dropout)
        self.head: nn.Module = HazardHead(width, NUM_YEARS) if head == "hazard" else nn.Linear(width, NUM_YEARS)
        view_V = torch.tensor([PROJECTIONS.index(projection) for _, projection in VIEWS])
        self.register_buffer("_view_V", view_V, persistent=False)
        self.register_buffer("_side_V", torch.tensor([SIDES.index(side) for side, _ in VIEWS]), persistent=False)

    def forward(self, features_BVF: Tensor, present_BV: Tensor) -> Tensor:
        """Logits (B, T); the sigmoid of the t-th is the risk of the first t years.

        Args:
            features_BVF: vectors of the views; what stands for a missing one is not looked at.
            present_BV: bool, at least one view of each exam.
        """
        features_BVF = torch.where(present_BV[..., None], features_BVF, torch.zeros_like(features_BVF))
        token_BVW = self.projection(self.norm(features_BVF)) + self._places()
        token_BVW = self.transformer(token_BVW, src_key_padding_mask=~present_BV)
        weight_BV1 = present_BV[..., None].to(token_BVW.dtype)
        mean_BW = (token_BVW * weight_BV1).sum(dim=1) / weight_BV1.sum(dim=1)
        return cast(Tensor, self.head(self.dropout(torch.relu(mean_BW))))

    def _places(self) -> Tensor:
        """What is added to each view's token, (V, W)."""
        view_V, side_V = cast(Tensor, self._view_V), cast(Tensor, self._side_V)
        time_VE = self.time_embedding(torch.zeros_like(view_V))
        place_VE = torch.cat([time_VE, self.view_embedding(view_V), self.side_embedding(side_V)], dim=1)
        return cast(Tensor, self.embedding_projection(place_VE))
