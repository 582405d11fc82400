"""Settings of the task ``text``: adapting the text encoder to reports before pretraining (paper, Architecture).

Masking and swapping are the paper's; where it is silent (batch, schedule, weights of the two losses) the defaults are
those of pretraining, and both losses count alike.
"""

from typing import Literal

from pydantic import Field

from mammofed_shared.config.base import Settings
from mammofed_shared.config.pretrain import OptimizerSettings, TextEncoderSettings


class TextLossSettings(Settings):
    """Weights of the two losses."""

    masked_weight: float = Field(1.0, gt=0, le=10)
    """Of the masked tokens' cross-entropy."""
    pair_weight: float = Field(1.0, ge=0, le=10)
    """Of the question whether findings and impression belong together; 0 leaves it out."""


class TextSettings(Settings):
    """Everything that the task `text` can be told. Same on every site of a run."""

    name: Literal["text"] = "text"
    text_encoder: TextEncoderSettings = TextEncoderSettings()
    masked_share: float = Field(0.15, gt=0, lt=1)
    """Share of a report's tokens that are to be predicted. Of these 80 % are hidden, 10 % replaced, 10 % left."""
    swapped_share: float = Field(0.5, ge=0, le=1)
    """Share of reports with both sections whose impression is another exam's."""
    loss: TextLossSettings = TextLossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    batch_size: int = Field(32, ge=2)
    """Reports of one optimizer step."""
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """`bf16`: autocast; master weights stay fp32. `fp16`: the same with a scaled loss, for GPUs without bf16."""
    validation_exams: int = Field(1000, ge=0)
    """Most exams of the split `validation` that a visit scores before and after training; 0 leaves validation out."""

    @property
    def findings(self) -> tuple[str, ...]:
        """No number of this task is of a finding."""
        return ()
