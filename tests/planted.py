"""Models of which it is known what they see: a bright patch, dim tissue, and nothing else.

Images are 64 × 40 with cells of 16 × 8: 4 × 5. Channel 0 of a cell is 1 where it is bright (a patch), channel 1 is
1 where it is dim (tissue), channel 2 is 1 where it is black. The dictionary is the identity, so that neuron 0 is the
patch and neuron 1 the tissue.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from mammofed_shared.data.risk import VIEWS
from mammofed_shared.exam import Exam, Image, Laterality, Report, Split, View
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder

CELL = (16, 8)
SIZE = (64, 40)
PATCH, TISSUE, BLACK = 0, 1, 2
REPORT = Report("The breasts are almost entirely fatty. There is a mass in the left breast.", "BI-RADS category 0.")
MASS = "There is a mass in the left breast."


class PlantedImageEncoder(nn.Module):
    """Gives each cell what it is; pools by the mean."""

    pooling = "avg"

    def feature_map(self, grey_BHW: Tensor) -> Tensor:
        """(B, 3, 4, 5)."""
        mean_Bhw = nn.functional.avg_pool2d(grey_BHW[:, None].float(), CELL)[:, 0]
        return torch.stack([mean_Bhw > 150, (mean_Bhw > 20) & (mean_Bhw <= 150), mean_Bhw <= 20], dim=1).float()

    def pool(self, map_BChw: Tensor) -> Tensor:
        """(B, 3)."""
        return map_BChw.mean(dim=(2, 3))


class PlantedEncoder(nn.Module):
    """Its shared space is that of the channels: a sentence on a mass lies at the patch, one on fat at the tissue."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = PlantedImageEncoder()

    def project_images(self, features: Tensor) -> Tensor:
        """Unit vectors, in front of a fixed background."""
        return nn.functional.normalize(features + 0.01, dim=-1)

    def embed_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors, by the first token."""
        return torch.eye(3)[ids[:, 0]]


class PlantedTokenizer:
    """Knows three words."""

    def __call__(self, texts: Sequence[str]) -> object:
        """The channel that a text is of."""
        ids = np.array([[PATCH if "mass" in text else TISSUE if "fatty" in text else BLACK] for text in texts])
        return type("Tokens", (), {"ids": ids, "mask": np.ones_like(ids)})


class PlantedHead(nn.Module):
    """The risk's logit is -4 + year + 60 times the patch's share of the images, minus the tissue's."""

    def forward(self, features_BVF: Tensor, present_BV: Tensor) -> Tensor:
        """Logits (B, 5)."""
        shown_BVF = features_BVF * present_BV[..., None]
        score_B = 60 * shown_BVF[..., PATCH].sum(dim=1) - shown_BVF[..., TISSUE].sum(dim=1)
        return (score_B / present_BV.sum(dim=1))[:, None] - 4 + torch.arange(1, 6)


def planted_autoencoder() -> SparseAutoencoder:
    """Identity: neuron n gives channel n."""
    made = SparseAutoencoder(3, 3, [2, 3])
    for matrix in (made.encoder, made.decoder):
        matrix.data = torch.eye(3)
    return made.eval().requires_grad_(False)


def planted_exam(
    folder: Path,
    patches: dict[tuple[Laterality, View], tuple[int, int]],
    views: Sequence[tuple[Laterality, View]] = VIEWS,
) -> Exam:
    """An exam of fatty breasts; ``patches`` has the cell (row, column) of a bright patch in some views."""
    images = []
    for side, view in views:
        pixels = np.zeros(SIZE, np.uint8)
        pixels[8:56, :24] = 60  # tissue at the chest wall, on the left
        if (side, view) in patches:
            row, column = patches[side, view]
            pixels[row * CELL[0] : (row + 1) * CELL[0], column * CELL[1] : (column + 1) * CELL[1]] = 220
        path = folder / f"{side}{view}.png"
        cv2.imwrite(str(path), pixels)
        images.append(Image(f"{side}{view}", side, view, path, "other", ""))
    return Exam("e", "p", "d", Split.TEST, REPORT, tuple(images))
