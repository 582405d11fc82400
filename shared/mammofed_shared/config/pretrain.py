"""Settings of the task ``pretrain``: image–text pretraining of Mammo-FM (paper, Architecture and Training).

The defaults are the paper's; where paper and released code differ, docs/ says what was chosen.
"""

from typing import Literal

from pydantic import Field

from mammofed_shared.config.base import Settings
from mammofed_shared.config.evaluation_task import MeasureSettings


class ImageEncoderSettings(Settings):
    """A timm model and how its feature map becomes one vector."""

    name: str = "tf_efficientnet_b5"
    """Name of a timm model; `mammofed_small_cnn` is ours, registered with timm."""
    weights: str = Field("imagenet", min_length=1)
    """What the run's first checkpoint is made of, read by the coordinator alone: `none`, random weights; `imagenet`,
    timm's pretrained ones; else a `.safetensors` file in timm's names, or the folder that holds it."""
    pooling: Literal["avg", "avgmax"] = "avg"
    """`avgmax` concatenates mean and maximum: small findings survive it on small networks."""
    activation_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, more time."""
    batch_norm: Literal["local", "sync", "frozen"] = "local"
    """`local`: statistics of what one process computes at once, as the paper; `sync`: of all processes of a site;
    `frozen`: running statistics never move."""


class TextEncoderSettings(Settings):
    """A transformers encoder. Its folder (config, tokenizer, weights) is the site's, its digest the plan's."""

    weights: Literal["none", "folder"] = "folder"
    """`folder`: start from the weights in the folder; `none`: from random ones of the same architecture."""
    pooling: Literal["cls", "last"] = "cls"
    """Which token speaks for the text: `cls`, the first one, as in the paper; `last`, as in the authors' code."""
    max_tokens: int = Field(512, ge=8, le=8192)
    """Longer reports are cut, counted and reported."""
    activation_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, more time."""


class LossSettings(Settings):
    """Multi-view supervision (paper: MVS); see losses/contrastive.py."""

    variant: Literal["paper", "reference"] = "paper"
    """`paper`: sum of all ordered pairs; `reference`: the weights of the authors' released code."""
    text_text_weight: float = Field(0.5, ge=0, le=10)
    """Weight of the text–text term."""


class OptimizerSettings(Settings):
    """AdamW with linear warm-up and cosine decay over the global progress of the run."""

    learning_rate: float = Field(5e-5, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    warmup_epochs: float = Field(1.0, ge=0)
    """Length of the warm-up in epochs of the run."""
    state: Literal["keep", "reset"] = "keep"
    """`keep`: a site keeps its moments between its visits; they never travel."""
    clip_norm: float = Field(1.0, gt=0)
    """Largest global gradient norm of a step."""
    most_skipped: int = Field(10, ge=1)
    """A step without a finite loss and gradient is skipped and counted; so many in a row end the visit."""


class AugmentationSettings(Settings):
    """Synthetic view of an image whose other view (CC or MLO) is missing (paper: instance augmentation)."""

    natural_view: bool = True
    """Use the other view of the same breast as the augmented image when it exists."""
    flip_probability: float = Field(0.5, ge=0, le=1)
    rotation_deg: float = Field(20.0, ge=0, le=180)
    translation: float = Field(0.1, ge=0, le=1)
    """Largest shift as a fraction of the image's size."""
    scale: tuple[float, float] = (0.8, 1.2)
    shear_deg: float = Field(20.0, ge=0, le=60)
    elastic_alpha: float = Field(10.0, ge=0)
    """Largest step of the elastic map in pixels; 0 leaves it out."""
    elastic_sigma: float = Field(15.0, gt=0)
    """Smoothness of the elastic map in pixels."""


class PretrainSettings(Settings):
    """Everything that the task `pretrain` can be told. Same on every site of a run."""

    name: Literal["pretrain"] = "pretrain"
    image_encoder: ImageEncoderSettings = ImageEncoderSettings()
    text_encoder: TextEncoderSettings = TextEncoderSettings()
    projection_dim: int = Field(512, ge=8)
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    batch_size: int = Field(16, ge=2)
    """Samples (breasts) of one optimizer step."""
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """`bf16`: autocast; master weights stay fp32. `fp16`: the same with a scaled loss, for GPUs without bf16."""
    findings: tuple[str, ...] = ("mass", "calcification")
    """Findings whose zero-shot AUROC each evaluation reports."""
    measure: MeasureSettings = MeasureSettings()

    @property
    def validation_exams(self) -> int:
        """Of ``measure``, by the name that it has in every task."""
        return self.measure.validation_exams
