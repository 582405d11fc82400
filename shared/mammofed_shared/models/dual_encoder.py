"""The dual encoder of Mammo-FM: image and text in one space (paper, section Architecture).

Shapes: B samples, H rows, W columns, T tokens, D dimensions of the shared space.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from mammofed_shared.models.image_encoder import ImageEncoder
from mammofed_shared.models.text_encoder import TextEncoder

INITIAL_LOG_SCALE = math.log(1 / 0.07)
LARGEST_LOG_SCALE = math.log(100)
"""Held after each optimizer step by the task."""


class DualEncoder(nn.Module):
    """Two encoders, a linear projection each, and a learnable temperature.

    ``log_scale`` is the logarithm of 1 / temperature, shape (1,).
    """

    def __init__(self, image_encoder: ImageEncoder, text_encoder: TextEncoder, projection_dim: int) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.image_projection = nn.Linear(image_encoder.num_features, projection_dim, bias=False)
        self.text_projection = nn.Linear(text_encoder.num_features, projection_dim, bias=False)
        self.log_scale = nn.Parameter(torch.full((1,), INITIAL_LOG_SCALE))

    def forward(self, grey_B2HW: Tensor, ids_B2T: Tensor, mask_B2T: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the loss needs of each sample: image and view (B, 2, D), text and second text (B, 2, D), log scale (B,).

        Each row's log scale is the same; the loss uses the first.
        """
        image_ND = self.embed_images(grey_B2HW.flatten(0, 1))
        text_ND = self.embed_texts(ids_B2T.flatten(0, 1), mask_B2T.flatten(0, 1))
        pairs = (-1, 2, image_ND.shape[-1])
        return image_ND.view(pairs), text_ND.view(pairs), self.log_scale.expand(len(grey_B2HW))

    def embed_images(self, grey_BHW: Tensor) -> Tensor:
        """Unit vectors (B, D) in float32."""
        return self.project_images(self.image_encoder(grey_BHW))

    def project_images(self, features_BF: Tensor) -> Tensor:
        """Unit vectors (…, D) in float32 of what the image encoder gives, (…, F)."""
        return F.normalize(cast(Tensor, self.image_projection(features_BF)).float(), dim=-1)

    def embed_texts(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Unit vectors (B, D) in float32."""
        projected = self.text_projection(self.text_encoder(ids_BT, mask_BT))
        return F.normalize(cast(Tensor, projected).float(), dim=-1)
