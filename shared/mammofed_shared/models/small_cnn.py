"""``mammofed_small_cnn``: five convolutions that learn on a laptop's CPU, registered with timm.

It serves demos and tests through the very code that serves EfficientNet-B5, and proves nothing about mammograms.
"""

from typing import Any

from timm.models import register_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHANNELS = (16, 32, 64, 96, 80)


class SmallCNN(nn.Module):
    """Five blocks of convolution, batch normalisation and ReLU; each of the first four halves the image.

    Args:
        in_chans: channels of the image.
        num_classes: timm's argument; a feature extractor has none.
    """

    def __init__(self, in_chans: int = 3, num_classes: int = 0) -> None:
        super().__init__()
        if num_classes:
            raise ValueError("mammofed_small_cnn: expected num_classes=0, it has no classifier")
        self.num_features = CHANNELS[-1]
        self.grad_checkpointing = False
        widths = (in_chans, *CHANNELS)
        self.blocks = nn.Sequential(
            *(_block(widths[i], widths[i + 1], stride=2 if i < 4 else 1) for i in range(len(CHANNELS)))
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # The last gain starts at 0 (Goyal et al. 2017, section 5.1), so that an untrained model gives every image the
        # same vector: random filters see bright discs, and their luck would be taken for knowledge. The shift keeps
        # the ReLU open, and is small so that a few steps outgrow it: with 0.1 two rounds were lost.
        last = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)][-1]
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, 1e-3)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks' activations in the backward pass."""
        self.grad_checkpointing = enable

    def forward_features(self, image_BCHW: Tensor) -> Tensor:
        """Feature map (B, 80, H/16, W/16)."""
        x = image_BCHW
        for block in self.blocks:
            recompute = self.grad_checkpointing and self.training
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Mean over the feature map, (B, 80)."""
        return self.forward_features(image_BCHW).mean(dim=(2, 3))


def _block(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


@register_model
def mammofed_small_cnn(pretrained: bool = False, **kwargs: Any) -> SmallCNN:
    """timm's entry point; there are no pretrained weights."""
    if pretrained:
        raise ValueError("mammofed_small_cnn has no pretrained weights: set image_encoder.weights to none")
    return SmallCNN(kwargs.get("in_chans", 3), kwargs.get("num_classes", 0))
