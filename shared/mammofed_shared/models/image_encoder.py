"""From mammograms to one vector an image: any timm model, pooled.

Shapes: B images, H rows, W columns, C channels, F features.
"""

from pathlib import Path
from typing import Any, Literal, cast

import timm
import torch
from torch import Tensor, nn

import mammofed_shared.models.small_cnn  # noqa: F401  registers mammofed_small_cnn with timm
from mammofed_shared.models.batch_norm import BatchNormMode, StatisticsGuard, batch_norms, synchronise
from mammofed_shared.models.image_weights import load_image_weights

INTENSITY_MEAN = 0.3089279
INTENSITY_STD = 0.25053555408335154
"""Of min–max scaled mammograms; the authors' released code (golden c_normalise)."""


def normalise(grey_BHW: Tensor) -> Tensor:
    """Scale each image to 0..1 by its own minimum and maximum, then standardise; a constant image gives one value.

    Args:
        grey_BHW: uint8 or float of any range.

    Returns:
        float32, same shape.
    """
    x = grey_BHW.float()
    low = x.amin(dim=(1, 2), keepdim=True)
    span = x.amax(dim=(1, 2), keepdim=True) - low
    # A blank image has no span: it becomes 0, not NaN.
    x = (x - low) / torch.where(span > 0, span, torch.ones_like(span))
    return (x - INTENSITY_MEAN) / INTENSITY_STD


class ImageEncoder(nn.Module):
    """A timm model without its head, then pooling over the feature map.

    Args:
        name: timm name; ``tf_efficientnet_b5`` in the paper.
        weights: what to start from: ``none`` (random weights), ``imagenet`` (timm's, downloaded), or the path of a
            safetensors file or of the folder that holds it.
        pooling: ``avg``, or ``avgmax`` for mean and maximum one after the other (twice the features).
        activation_checkpointing: recompute activations in the backward pass.
        batch_norm: as ``models/batch_norm.py`` says; ``sync`` takes effect by ``synchronise``.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str = "none",
        pooling: Literal["avg", "avgmax"] = "avg",
        activation_checkpointing: bool = False,
        batch_norm: BatchNormMode = "local",
    ) -> None:
        super().__init__()
        model: Any = timm.create_model(name, pretrained=weights == "imagenet", num_classes=0, in_chans=3)
        if weights not in ("none", "imagenet"):
            load_image_weights(model, Path(weights))
        self.model = model
        self.pooling = pooling
        self.batch_norm = batch_norm
        self.num_features = int(model.num_features) * (2 if pooling == "avgmax" else 1)
        if activation_checkpointing:
            model.set_grad_checkpointing(True)
        self.statistics = StatisticsGuard(model)
        if isinstance(head := getattr(model, "head", None), nn.Module):
            head.requires_grad_(False)  # of ConvNeXt and others; the feature map comes before it

    def train(self, mode: bool = True) -> "ImageEncoder":
        """Training mode; frozen batch normalisation stays as in evaluation."""
        super().train(mode)
        if self.batch_norm == "frozen":
            for module in batch_norms(self.model):
                module.eval()
        return self

    def synchronise(self) -> None:
        """Take statistics over all processes of the group; called once, on the device."""
        self.statistics.remove()
        self.model = synchronise(self.model)
        self.statistics = StatisticsGuard(self.model)

    def compile_encoder(self) -> None:
        """Compile the convolutions with torch.compile at their first use; the state's names stay."""
        self.model.forward_features = torch.compile(self.model.forward_features)

    def feature_map(self, grey_BHW: Tensor) -> Tensor:
        """Feature map (B, F, rows, columns) of the unpooled encoder."""
        # Three equal channels are a view, made on the device: grey images travel and wait as one channel.
        image_BCHW = normalise(grey_BHW).unsqueeze(1).expand(-1, 3, -1, -1)
        # Channels last makes a step of the small CNN 30 % shorter on a CPU.
        image_BCHW = image_BCHW.contiguous(memory_format=torch.channels_last)
        with self.statistics.computing():
            return cast(Tensor, cast(Any, self.model).forward_features(image_BCHW))

    def forward(self, grey_BHW: Tensor) -> Tensor:
        """Vectors (B, ``num_features``)."""
        return self.pool(self.feature_map(grey_BHW))

    def pool(self, map_BChw: Tensor) -> Tensor:
        """Vectors (B, ``num_features``) of feature maps."""
        mean = map_BChw.mean(dim=(2, 3))
        if self.pooling == "avg":
            return mean
        return torch.cat([mean, map_BChw.amax(dim=(2, 3))], dim=1)
