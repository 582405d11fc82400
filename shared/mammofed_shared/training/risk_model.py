"""A risk head with what it learns from, and the heads of both tasks by their settings.

Shapes: B exams, S slots (four views or two pairs), T years.
"""

from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from mammofed_shared.config.risk import RiskAsymmiraiSettings, RiskMiraiSettings, RiskSettings
from mammofed_shared.losses.distillation import bernoulli_rows, squared_rows, teacher_logits
from mammofed_shared.losses.survival import censored_rows
from mammofed_shared.models.asymmirai import AsymmetryHead
from mammofed_shared.models.mirai import MiraiHead


class RiskModel(nn.Module):
    """A head, and its losses of each exam; of the frozen encoder it holds nothing.

    Args:
        head: features and which slots are there → logits (B, T).
    """

    def __init__(self, head: nn.Module, distillation: Literal["bernoulli", "squared"], temperature: float) -> None:
        super().__init__()
        self.head = head
        self._distilled = bernoulli_rows if distillation == "bernoulli" else squared_rows
        self._temperature = temperature

    def logits(self, features: Tensor, present_BS: Tensor) -> Tensor:
        """Logits (B, T) float32; the sigmoid of the t-th is the risk of the first t years."""
        return cast(Tensor, self.head(features, present_BS)).float()

    def forward(
        self,
        features: Tensor,
        present_BS: Tensor,
        teacher_BT: Tensor,
        has_teacher_B: Tensor,
        has_cancer_BT: Tensor,
        known_BT: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each exam: the loss against its teacher and whether there is one, that against its outcome likewise.

        All (B,) float32; a loss is 0 where there is nothing to compare with.

        Args:
            teacher_BT: risks in 0..1; not looked at where ``has_teacher_B`` is 0.
            has_cancer_BT: 1 where cancer was found within t years; not looked at where it is not known.
        """
        logit_BT = self.logits(features, present_BS)
        with torch.autocast(logit_BT.device.type, enabled=False):
            distilled_B = self._distilled(logit_BT, teacher_logits(teacher_BT), self._temperature)
            outcome_B = censored_rows(logit_BT, has_cancer_BT, known_BT)
        return distilled_B * has_teacher_B, has_teacher_B, outcome_B, known_BT.any(dim=1).float()


def build_model(settings: RiskSettings, text_encoder: Path | None, pretrained: bool) -> RiskModel:
    """The head of a run, with random weights.

    Args:
        text_encoder, pretrained: as every task's; a head has neither.
    """
    return RiskModel(_head(settings), settings.distillation, settings.temperature)


def _head(settings: RiskSettings) -> nn.Module:
    if isinstance(settings, RiskMiraiSettings):
        return MiraiHead(
            settings.encoder_features,
            width=settings.width,
            num_layers=settings.num_layers,
            num_heads=settings.num_heads,
            dropout=settings.dropout,
            head=settings.head,
        )
    assert isinstance(settings, RiskAsymmiraiSettings), "there are two heads"
    return AsymmetryHead(
        settings.encoder_features, order=settings.order, window=settings.window, stride=settings.stride
    )
