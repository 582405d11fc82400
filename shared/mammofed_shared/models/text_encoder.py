"""From reports to one vector a text: any transformers encoder, the embedding of one of its tokens.

Shapes: B texts, T tokens, F features.
"""

from pathlib import Path
from typing import Any, Literal

import torch
import transformers.models.modernbert.modeling_modernbert  # noqa: F401  loaded once, before workers are forked (0.7 s)
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel


class TextEncoder(nn.Module):
    """A transformers encoder from a local folder; nothing is downloaded and no code of the folder runs.

    Args:
        folder: with config.json, and weights where ``pretrained``.
        pretrained: load the folder's weights; else random ones of the same architecture.
        activation_checkpointing: recompute activations in the backward pass.
        pooling: which token speaks for the text: ``cls``, the first one (paper), or ``last`` (the authors' code).

    Raises:
        ValueError: the architecture cannot recompute its activations.
        OSError: the folder holds no configuration, or no weights.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pretrained: bool = False,
        activation_checkpointing: bool = False,
        pooling: Literal["cls", "last"] = "cls",
    ) -> None:
        super().__init__()
        self.pooling = pooling
        options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        config = AutoConfig.from_pretrained(folder, **options)
        auto_model: Any = AutoModel
        if pretrained:
            # Only safetensors: nothing is unpickled.
            self.model = auto_model.from_pretrained(
                folder, config=config, dtype=torch.float32, use_safetensors=True, **options
            )
        else:
            self.model = auto_model.from_config(config, trust_remote_code=False, dtype=torch.float32)
        self.num_features = int(config.hidden_size)
        if isinstance(pooler := getattr(self.model, "pooler", None), nn.Module):
            pooler.requires_grad_(False)  # of BERT and others; nothing here looks at it
        if activation_checkpointing:
            self.model.activation_checkpointing_enable()

    def compile_encoder(self) -> None:
        """Compile the layers with torch.compile at their first use, for any length of text; the state's names stay."""
        self.model.compile(dynamic=True)

    def forward(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """One vector a text (B, F)."""
        return self.pooled(self.hidden_states(ids_BT, mask_BT), mask_BT)

    def pooled(self, hidden_BTF: Tensor, mask_BT: Tensor) -> Tensor:
        """What the token that speaks for each text holds (B, F)."""
        if self.pooling == "cls":
            return hidden_BTF[:, 0]
        last_B = mask_BT.sum(dim=1) - 1
        return hidden_BTF[torch.arange(len(hidden_BTF), device=last_B.device), last_B]

    def hidden_states(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """What the last layer gives for each token (B, T, F)."""
        hidden_BTF: Tensor = self.model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
        return hidden_BTF
