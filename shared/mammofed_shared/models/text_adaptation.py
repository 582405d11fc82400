"""The text encoder with what its adaptation asks of it: hidden tokens, and whether two sections belong together.

Shapes: B reports, T tokens, F features, N tokens that are asked for, V words of the vocabulary.
"""

from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors import safe_open
from torch import Tensor, nn

from mammofed_shared.models.text_encoder import TextEncoder


class MaskedTokenHead(nn.Module):
    """From a token's features to its word: ModernBERT's own head, whose last layer is the embedding table."""

    def __init__(self, config: Any, num_words: int) -> None:
        super().__init__()
        size = int(config.hidden_size)
        self.dense = nn.Linear(size, size, bias=bool(getattr(config, "classifier_bias", True)))
        self.norm = nn.LayerNorm(
            size, eps=float(getattr(config, "norm_eps", 1e-5)), bias=bool(getattr(config, "norm_bias", True))
        )
        self.bias = nn.Parameter(torch.zeros(num_words))
        nn.init.normal_(self.dense.weight, std=float(getattr(config, "initializer_range", 0.02)))

    def forward(self, hidden_NF: Tensor, table_VF: Tensor) -> Tensor:
        """Logits (N, V)."""
        return F.linear(self.norm(F.gelu(self.dense(hidden_NF))), table_VF, self.bias)


class TextAdaptation(nn.Module):
    """A text encoder and two heads.

    Args:
        folder: the encoder's; where it holds the head of a ``ModernBertForMaskedLM`` too, ``pretrained`` takes that.
    """

    def __init__(self, text_encoder: TextEncoder, folder: Path, *, pretrained: bool = False) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        features = text_encoder.num_features
        self.masked_head = MaskedTokenHead(text_encoder.model.config, len(self._table()))
        self.pair_head = nn.Sequential(nn.Linear(features, features), nn.Tanh(), nn.Linear(features, 1))
        if pretrained:
            _load_masked_head(self.masked_head, folder)

    def predictions(self, ids_BT: Tensor, mask_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the tokens that are asked for (N, V), and of the sections belonging together (B,); float32.

        Args:
            targets_BT: below 0 where a token is not asked for.
        """
        hidden_BTF = self.text_encoder.hidden_states(ids_BT, mask_BT)
        logits_NV: Tensor = self.masked_head(hidden_BTF[targets_BT >= 0], self._table())
        pair_B1: Tensor = self.pair_head(self.text_encoder.pooled(hidden_BTF, mask_BT))
        return logits_NV.float(), pair_B1.squeeze(1).float()

    def forward(
        self, ids_BT: Tensor, mask_BT: Tensor, targets_BT: Tensor, pair_B: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each report: the sum of the tokens' losses and their number, the pair's loss and whether there is one.

        All (B,) float32; a batch's means come from sums over its reports.

        Args:
            pair_B: 1 and 0: the sections belong together or not; below 0: there are no two.
        """
        logits_NV, pair_logit_B = self.predictions(ids_BT, mask_BT, targets_BT)
        is_asked_BT = targets_BT >= 0
        loss_BT = torch.zeros(targets_BT.shape, device=targets_BT.device)
        loss_BT[is_asked_BT] = F.cross_entropy(logits_NV, targets_BT[is_asked_BT], reduction="none")
        has_pair_B = (pair_B >= 0).float()
        answer_B = pair_B.clamp(min=0).float()
        pair_loss_B = has_pair_B * F.binary_cross_entropy_with_logits(pair_logit_B, answer_B, reduction="none")
        return loss_BT.sum(dim=1), is_asked_BT.sum(dim=1).float(), pair_loss_B, has_pair_B

    def _table(self) -> Tensor:
        return cast(Tensor, self.text_encoder.model.get_input_embeddings().weight)


def _load_masked_head(head: MaskedTokenHead, folder: Path) -> None:
    """Give a head the weights that the folder holds under the names of ``ModernBertForMaskedLM``, if all are there."""
    own = head.state_dict()
    names = {"decoder.bias" if name == "bias" else f"head.{name}": name for name in own}
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as stored:
            found |= {names[name]: stored.get_tensor(name) for name in stored.keys() if name in names}  # noqa: SIM118
    if {name: tensor.shape for name, tensor in found.items()} == {name: tensor.shape for name, tensor in own.items()}:
        head.load_state_dict(found)
