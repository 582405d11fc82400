"""MIRAI as it was published, for inference: the teacher whose risks the students are trained to give.

Yala et al., Toward robust mammography-based models for breast cancer risk, Science Translational Medicine 2021, and
the authors' code (https://github.com/yala/Mirai, MIT licence): ``onconet/models/hiddens_transfomer.py``,
``mirai_full.py``, ``pools/risk_factor_pool.py`` at commit 4da9349. Nothing trains here, so what only training needs
(masking, dropout, adversary) is left out. Modules bear the names of the published weights.

Shapes: B exams, N images of an exam, F features of an image, D width, T years, H rows, W columns.
"""

from collections.abc import Mapping
from typing import Literal, cast

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from mammofed_shared.models.hazard import HazardHead

Pool = Literal["GlobalAvgPool", "GlobalMaxPool", "Simple_AttentionPool"]
"""How the images of an exam become one vector, by MIRAI's names."""

_NUM_TIMES, _NUM_VIEWS, _NUM_SIDES, _EMBEDDED = 11, 3, 3, 32
"""Rows of the embeddings (the last one pads) and their width."""


class MiraiTransformer(nn.Module):
    """From one vector an image to the logits of an exam.

    Args:
        num_features: F.
        width: D.
        pool: over the images.
        risk_factors: size of each risk factor that is predicted from the pooled vector and appended to it, in MIRAI's
            order; size 1 is a probability, a longer one a distribution. Empty: none.
    """

    def __init__(
        self,
        *,
        num_features: int,
        width: int,
        num_layers: int,
        num_heads: int,
        pool: Pool,
        risk_factors: Mapping[str, int],
        num_years: int = 5,
    ) -> None:
        super().__init__()
        self.projection_layer = nn.Linear(num_features, width)
        self.mask_embedding = nn.Embedding(2, num_features)
        self.transformer = _ConditionedLayers(width, num_layers, num_heads)
        self.pool = _Pool(width, pool, risk_factors)
        self.prob_of_failure_layer = HazardHead(width + sum(risk_factors.values()), num_years)

    def forward(self, features_BNF: Tensor, time_BN: Tensor, view_BN: Tensor, side_BN: Tensor) -> Tensor:
        """Logits (B, T) before calibration.

        Args:
            time_BN: years between image and exam; 0 for its own images.
            view_BN: 0 CC, 1 MLO, 2 padding.
            side_BN: 0 right, 1 left, 2 padding.
        """
        pooled = self.pool(self.hidden(features_BNF, time_BN, view_BN, side_BN))
        return cast(Tensor, self.prob_of_failure_layer(torch.relu(pooled)))

    def hidden(self, features_BNF: Tensor, time_BN: Tensor, view_BN: Tensor, side_BN: Tensor) -> Tensor:
        """Vectors (B, N, D) of the images, each in the light of the others."""
        # Row 1 stands for "not masked": zeros, unless somebody has trained it.
        kept = features_BNF + self.mask_embedding.weight[1]
        return cast(Tensor, self.transformer(self.projection_layer(kept), time_BN, view_BN, side_BN))


class _ConditionedLayers(nn.Module):
    """Embeddings of view, time and side scale and shift each vector (FiLM); then the layers."""

    def __init__(self, width: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.time_embed = nn.Embedding(_NUM_TIMES, _EMBEDDED)
        self.view_embed = nn.Embedding(_NUM_VIEWS, _EMBEDDED)
        self.side_embed = nn.Embedding(_NUM_SIDES, _EMBEDDED)
        self.embed_add_fc = nn.Linear(3 * _EMBEDDED, width)
        self.embed_scale_fc = nn.Linear(3 * _EMBEDDED, width)
        self._num_layers = num_layers
        for number in range(num_layers):
            self.add_module(f"transformer_layer_{number}", _Layer(width, num_heads))

    def forward(self, x_BND: Tensor, time_BN: Tensor, view_BN: Tensor, side_BN: Tensor) -> Tensor:
        embedded = torch.cat([self.view_embed(view_BN), self.time_embed(time_BN), self.side_embed(side_BN)], dim=-1)
        x_BND = self.embed_scale_fc(embedded) * x_BND + self.embed_add_fc(embedded)
        for number in range(self._num_layers):
            x_BND = self.get_submodule(f"transformer_layer_{number}")(x_BND)
        return x_BND


class _Layer(nn.Module):
    """Attention and a network of one hidden layer, normalised after each (post-norm)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.multihead_attention = _Attention(width, num_heads)
        self.layernorm_attn = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)
        self.layernorm_fc = nn.LayerNorm(width)

    def forward(self, x_BND: Tensor) -> Tensor:
        x_BND = self.layernorm_attn(self.multihead_attention(x_BND) + x_BND)
        return cast(Tensor, self.layernorm_fc(self.fc2(torch.relu(self.fc1(x_BND))) + x_BND))


class _Attention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.aggregate_fc = nn.Linear(width, width)
        self._num_heads = num_heads

    def forward(self, x_BND: Tensor) -> Tensor:
        query, key, value = (
            of(x_BND).unflatten(-1, (self._num_heads, -1)).transpose(1, 2) for of in (self.query, self.key, self.value)
        )
        attended = functional.scaled_dot_product_attention(query, key, value)
        return cast(Tensor, self.aggregate_fc(attended.transpose(1, 2).flatten(2)))


class _Pool(nn.Module):
    """One vector of the images' vectors, with the risk factors that are predicted from it."""

    def __init__(self, width: int, pool: Pool, risk_factors: Mapping[str, int]) -> None:
        super().__init__()
        self._name = pool
        self._sizes = dict(risk_factors)
        if pool == "Simple_AttentionPool":
            self.internal_pool = nn.ModuleDict({"attention_fc": nn.Linear(width, 1)})
        for name, size in risk_factors.items():
            self.add_module(f"{name}_fc", nn.Linear(width, size))

    def forward(self, x_BND: Tensor) -> Tensor:
        pooled_BD = self._pooled(x_BND)
        factors = [self._factor(name, size, pooled_BD) for name, size in self._sizes.items()]
        return torch.cat([pooled_BD, *factors], dim=1)

    def _pooled(self, x_BND: Tensor) -> Tensor:
        if self._name == "GlobalMaxPool":
            return x_BND.amax(dim=1)
        if self._name == "GlobalAvgPool":
            return x_BND.mean(dim=1)
        weight_BN1 = torch.softmax(self.internal_pool["attention_fc"](x_BND), dim=1)
        return (x_BND * weight_BN1).sum(dim=1)

    def _factor(self, name: str, size: int, pooled_BD: Tensor) -> Tensor:
        logit = self.get_submodule(f"{name}_fc")(pooled_BD)
        return torch.sigmoid(logit) if size == 1 else torch.softmax(logit, dim=-1)


class MiraiTeacher(nn.Module):
    """MIRAI with its image encoder and, where they are known, the coefficients of its calibration.

    Args:
        transformer: the second half.
        calibration: (T, 4), or None: slope and offset of MIRAI's base classifier, then of its sigmoid (Platt scaling).
    """

    calibration: Tensor | None

    def __init__(self, transformer: MiraiTransformer, calibration: Tensor | None = None) -> None:
        super().__init__()
        # ResNet-18 with the maximum over the feature map, 512 numbers.
        self.image_encoder: nn.Module = timm.create_model("resnet18", num_classes=0, global_pool="max")
        self.transformer = transformer
        self.register_buffer("calibration", calibration)

    def features(self, normalised_HW: Tensor) -> Tensor:
        """The vector (F,) of one image, grey values as ``normalise_mirai`` gives them."""
        return cast(Tensor, self.image_encoder(normalised_HW.expand(1, 3, -1, -1))[0])

    def risks(self, logit_BT: Tensor) -> Tensor:
        """Probabilities (B, T) of cancer within 1 … T years, float64, calibrated where the coefficients are known."""
        risk_BT = torch.sigmoid(logit_BT.double())
        if self.calibration is None:
            return risk_BT
        slope, offset, outer_slope, outer_offset = self.calibration.double().unbind(1)
        return torch.sigmoid(-(outer_slope * (slope * risk_BT + offset) + outer_offset))
