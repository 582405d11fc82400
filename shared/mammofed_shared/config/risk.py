"""Settings of the tasks ``risk-mirai`` and ``risk-asymmirai``: heads over the frozen encoder (paper, Risk prediction).

The defaults are the paper's: shape and dropout of the MIRAI student, learning rate and batch of AsymMIRAI. It is silent
on the student's learning rate and batch (here 10⁻⁴ and AsymMIRAI's 30), on α and temperature (½ and 1), and on the
window (a, b): here 6 × 5, moved by 3 × 3, which looks at every place of the paper's map of 48 × 29.
"""

from typing import Literal

from pydantic import Field, model_validator

from mammofed_shared.config.base import Settings
from mammofed_shared.config.features import AsymmetryFeatures, FeatureKind, MapFeatures, PooledFeatures, Size
from mammofed_shared.config.pretrain import OptimizerSettings


class RiskSettings(Settings):
    """What both heads can be told."""

    encoder_features: int = Field(2048, ge=1, le=65536)
    """Length of the frozen encoder's vectors; a site whose encoder gives another is refused."""
    alpha: float = Field(0.5, ge=0, le=1)
    """Weight of the teacher's risks in an exam's loss; 1 − alpha is that of its outcome. An exam of which one of both
    is known learns from that one alone. 1: distillation alone, outcomes are not looked at; 0: no teacher."""
    temperature: float = Field(1.0, gt=0, le=100)
    """By which logits of teacher and head are divided before they are compared."""
    distillation: Literal["bernoulli", "squared"] = "bernoulli"
    """`bernoulli`: each year's risk is a yes or no of its own; `squared`: difference of the logits."""
    missing_views: Literal["mask", "refuse"] = "mask"
    """An exam without all four views (AsymMIRAI: without both pairs): `mask` what is missing, or `refuse` the exam. No
    view is ever made up."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """`bf16`: autocast; master weights stay fp32. `fp16`: the same with a scaled loss, for GPUs without bf16."""
    validation_exams: int = Field(1000, ge=0)
    """Most exams of the split `validation` that a visit scores before and after training; 0 leaves validation out."""

    @property
    def findings(self) -> tuple[str, ...]:
        """No number of these tasks is of a finding."""
        return ()


class RiskMiraiSettings(RiskSettings):
    """Everything that the task `risk-mirai` can be told. Same on every site of a run."""

    name: Literal["risk-mirai"] = "risk-mirai"
    width: int = Field(512, ge=8, le=8192)
    num_layers: int = Field(3, ge=1, le=48)
    num_heads: int = Field(8, ge=1, le=128)
    dropout: float = Field(0.25, ge=0, lt=1)
    head: Literal["hazard", "logits"] = "hazard"
    """`hazard`: risk never falls with the year; `logits`: five that know nothing of each other, as in the paper."""
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=1e-4)
    batch_size: int = Field(30, ge=2)
    """Exams of one optimizer step."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "RiskMiraiSettings":
        if self.width % self.num_heads:
            raise ValueError(f"width is {self.width}: it must be a multiple of num_heads ({self.num_heads})")
        return self

    @property
    def features(self) -> FeatureKind:
        """One vector a view."""
        return PooledFeatures()


class RiskAsymmiraiSettings(RiskSettings):
    """Everything that the task `risk-asymmirai` can be told. Same on every site of a run."""

    name: Literal["risk-asymmirai"] = "risk-asymmirai"
    order: Literal["paper", "reference"] = "paper"
    """`paper`: difference of the sides, pooled, then weighed; `reference`: each side weighed first, as in the released
    code. It reads whole maps, 20 times the bytes."""
    window: tuple[Size, Size] = (6, 5)
    """Rows and columns of the map that one pooled value looks at."""
    stride: tuple[Size, Size] = (3, 3)
    """Rows and columns from one window to the next."""
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=5e-3)
    batch_size: int = Field(30, ge=2)
    """Exams of one optimizer step."""

    @property
    def features(self) -> FeatureKind:
        """What differs between the sides, or the maps of both."""
        if self.order == "reference":
            return MapFeatures()
        return AsymmetryFeatures(window=self.window, stride=self.stride)
