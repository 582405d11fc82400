"""From mammograms to one vector an image: any timm model, pooled.

Shapes: B images, H rows, W columns, C channels, F features.
"""

from typing import Any, Literal, cast

import timm
import torch
from torch import Tensor, nn

import mammofed_shared.models.small_cnn  # noqa: F401  registers mammofed_small_cnn with timm

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
        pretrained: load timm's ImageNet weights.
        pooling: ``avg``, or ``avgmax`` for mean and maximum one after the other (twice the features).
        activation_checkpointing: recompute activations in the backward pass.
        batch_norm: ``local`` trains with each batch's statistics; ``frozen`` uses the running ones, which never move.
    """

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = False,
        pooling: Literal["avg", "avgmax"] = "avg",
        activation_checkpointing: bool = False,
        batch_norm: Literal["local", "frozen"] = "local",
    ) -> None:
        super().__init__()
        model: Any = timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=3)
        self.model = model
        self.pooling = pooling
        self.batch_norm = batch_norm
        self.num_features = int(model.num_features) * (2 if pooling == "avgmax" else 1)
        self._in_forward = False
        if activation_checkpointing:
            model.set_grad_checkpointing(True)
            self._spare_running_statistics()

    def train(self, mode: bool = True) -> "ImageEncoder":
        """Training mode; frozen batch normalisation stays as in evaluation."""
        super().train(mode)
        if self.batch_norm == "frozen":
            for module in self._batch_norms():
                module.eval()
        return self

    def feature_map(self, grey_BHW: Tensor) -> Tensor:
        """Feature map (B, F, rows, columns) of the unpooled encoder."""
        # Three equal channels are a view, made on the device: grey images travel and wait as one channel.
        image_BCHW = normalise(grey_BHW).unsqueeze(1).expand(-1, 3, -1, -1)
        # Channels last makes a step of the small CNN 30 % shorter on a CPU.
        image_BCHW = image_BCHW.contiguous(memory_format=torch.channels_last)
        self._in_forward = True
        try:
            features = cast(Tensor, cast(Any, self.model).forward_features(image_BCHW))
        finally:
            self._in_forward = False
        return features

    def forward(self, grey_BHW: Tensor) -> Tensor:
        """Vectors (B, ``num_features``)."""
        features = self.feature_map(grey_BHW)
        mean = features.mean(dim=(2, 3))
        if self.pooling == "avg":
            return mean
        return torch.cat([mean, features.amax(dim=(2, 3))], dim=1)

    def _batch_norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.model.modules() if isinstance(module, nn.BatchNorm2d)]

    def _spare_running_statistics(self) -> None:
        """Keep the recomputation of the backward pass from counting a batch a second time.

        All is done before a layer runs: checkpointing may leave a layer in its midst, so nothing after it is sure.
        """
        momenta = {module: module.momentum for module in self._batch_norms()}

        def before(module: nn.Module, _: object) -> None:
            assert isinstance(module, nn.BatchNorm2d)
            recomputing = not self._in_forward and module.training
            module.momentum = 0.0 if recomputing else momenta[module]
            if recomputing and module.num_batches_tracked is not None:
                module.num_batches_tracked -= 1  # the layer adds it again

        for module in momenta:
            module.register_forward_pre_hook(before)
