"""An exam as the frozen encoder sees it: the feature map of each of its views.

Shapes: V views, C channels, h rows and w columns of the map, H rows and W columns of an image, F features.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammofed_shared.data.features import views_of
from mammofed_shared.data.image_text import load_grey, stack_greys
from mammofed_shared.data.risk import VIEWS
from mammofed_shared.exam import Exam, Laterality, View
from mammofed_shared.models.image_encoder import ImageEncoder
from mammofed_shared.models.mirai import MiraiHead

Place = tuple[Laterality, View]


@dataclass(frozen=True, slots=True)
class ExamMaps:
    """The views of an exam that were taken, in the order of ``data.risk.VIEWS``.

    ``greys`` (V, H, W) uint8 as stored, chest wall left; ``maps`` (V, C, h, w) float32 on the encoder's device.
    """

    views: tuple[Place, ...]
    greys: NDArray[np.uint8]
    maps: Tensor

    @property
    def map_size(self) -> tuple[int, int]:
        """(h, w)."""
        return self.maps.shape[2], self.maps.shape[3]

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.greys.shape[1], self.greys.shape[2]


@torch.no_grad()
def exam_maps(encoder: ImageEncoder, exam: Exam, device: torch.device) -> ExamMaps:
    """The maps of an exam, one image after the other.

    Raises:
        DataError: an image cannot be read.
    """
    images = views_of(exam)
    views = tuple(place for place in VIEWS if place in images)
    greys = stack_greys([load_grey(images[place]) for place in views])
    maps = [encoder.feature_map(torch.from_numpy(grey[None]).to(device)).float() for grey in greys]
    return ExamMaps(views, greys, torch.cat(maps))


@torch.no_grad()
def risks_of(head: MiraiHead, features_MVF: Tensor, views: tuple[Place, ...]) -> Tensor:
    """Risks (M, years) of M versions of an exam's features, 0..1; views that were not taken are masked."""
    slots = [VIEWS.index(place) for place in views]
    all_views_MVF = features_MVF.new_zeros((len(features_MVF), len(VIEWS), features_MVF.shape[2]))
    all_views_MVF[:, slots] = features_MVF
    present_MV = torch.zeros(all_views_MVF.shape[:2], dtype=torch.bool, device=features_MVF.device)
    present_MV[:, slots] = True
    return torch.sigmoid(head(all_views_MVF, present_MV).double())
