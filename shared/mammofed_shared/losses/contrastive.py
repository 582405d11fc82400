"""Multi-view supervision (MVS): symmetric InfoNCE over image, image view, text and text view.

Source: Mammo-FM, eq. (.2), as variant ``paper``; the authors' released code as variant ``reference``.
Shapes: B samples, D dimensions; row b of every set belongs to sample b.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


@dataclass(frozen=True, slots=True)
class MVSLoss:
    """The loss and its three parts, each as it enters the total, scalars; and the total of each sample, whose mean it
    is."""

    total: Tensor
    image_text: Tensor
    image_image: Tensor
    text_text: Tensor
    rows: Tensor


def info_nce(query_BD: Tensor, key_BD: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy of finding each query's own key among all keys, (B,)."""
    logits_BB = scale * query_BD @ key_BD.T
    return F.cross_entropy(logits_BB, torch.arange(len(logits_BB), device=logits_BB.device), reduction="none")


def mvs_loss(
    image_BD: Tensor,
    image_view_BD: Tensor,
    text_BD: Tensor,
    text_view_BD: Tensor,
    scale: Tensor,
    *,
    variant: Literal["paper", "reference"] = "paper",
    text_text_weight: float = 0.5,
) -> MVSLoss:
    """Loss of one batch of unit vectors.

    ``paper``: sum of InfoNCE over all 12 ordered pairs of the four sets, text–text pairs times ``text_text_weight``.
    ``reference``: mean of the 8 ordered image–text pairs, plus the mean of the 2 image–image pairs, plus
    ``text_text_weight`` times the mean of the 2 text–text pairs.

    Args:
        scale: 1 / temperature, scalar or shape (1,).
    """
    cross = torch.stack(
        [
            info_nce(query, key, scale)
            for image in (image_BD, image_view_BD)
            for text in (text_BD, text_view_BD)
            for query, key in ((image, text), (text, image))
        ]
    )
    images = torch.stack([info_nce(image_BD, image_view_BD, scale), info_nce(image_view_BD, image_BD, scale)])
    texts = torch.stack([info_nce(text_BD, text_view_BD, scale), info_nce(text_view_BD, text_BD, scale)])
    gather = torch.sum if variant == "paper" else torch.mean
    rows = [gather(cross, dim=0), gather(images, dim=0), text_text_weight * gather(texts, dim=0)]
    parts = [part.mean() for part in rows]
    rows_B = (rows[0] + rows[1] + rows[2]).detach()
    return MVSLoss(parts[0] + parts[1] + parts[2], parts[0], parts[1], parts[2], rows_B)
