"""Settings of the task ``sae``: the Matryoshka sparse autoencoder over patches of the frozen encoder (paper,
Interpreting the risk using SAE).

Sizes, levels' ends, losses and learning rate are the paper's. It is silent on the levels between, on the weight of ℓ1,
on the batch and on what happens to neurons that never fire.
"""

from typing import Literal

from pydantic import Field, model_validator

from mammofed_shared.config.base import Settings
from mammofed_shared.config.features import FeatureKind, PatchFeatures
from mammofed_shared.config.pretrain import OptimizerSettings


class SparsityLossSettings(Settings):
    """What is minimised; see losses/sparsity.py."""

    variant: Literal["paper", "nmse"] = "paper"
    """`paper`: squared error of the features, and ℓ1 of the code; `nmse`: error as a share of the features' squared
    length, without ℓ1, as in the public Matryoshka autoencoders."""
    l1_weight: float = Field(0.01, ge=0)
    """Of ℓ1 in `paper`, in the unit of the features: a neuron is worth firing from half of it on."""


class FidelitySettings(Settings):
    """What an evaluation measures with whole images: how well findings are told apart after reconstruction."""

    exams: int = Field(200, ge=0)
    """Most exams of the split `test` whose images are encoded for it; 0 leaves it out."""


class SaeSettings(Settings):
    """Everything that the task `sae` can be told. Same on every site of a run."""

    name: Literal["sae"] = "sae"
    encoder_features: int = Field(2048, ge=1, le=65536)
    """Channels of the frozen encoder's map; a site whose encoder gives another number is refused."""
    num_neurons: int = Field(16_384, ge=2, le=2**20)
    levels: tuple[int, ...] = Field((64, 256, 1024, 4096, 16_384), min_length=1)
    """How many neurons each of the nested codes keeps, rising. Explanations use the first."""
    wide_levels: Literal["in-turn", "all"] = "in-turn"
    """How levels are trained that keep so many neurons (from 1 in 32 on) that each takes products of whole matrices.
    `in-turn`: each on an equal part of a step's patches, whose errors count for all: the same loss in the mean, at the
    cost of one such level. `all`: each on all patches."""
    patches_per_image: int = Field(16, ge=1, le=1024)
    """Cells of an image's map that are kept as features and trained on: those that show breast, drawn once."""
    images_per_step: int = Field(128, ge=2)
    """Images of one optimizer step."""
    loss: SparsityLossSettings = SparsityLossSettings()
    dead_after_epochs: int = Field(4, ge=0)
    """A neuron that no patch has fired for so many epochs is made anew from badly reconstructed patches. At least as
    many as all sites together train in a round. 0: neurons are neither watched nor made anew, and which of them fire
    does not leave a site, as noise on updates asks."""
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=1e-4, weight_decay=0.0)
    """Without weight decay AdamW is the paper's Adam."""
    validation_exams: int = Field(200, ge=0)
    """Most exams of the split `validation` whose patches a visit scores before and after training; 0 leaves validation
    out."""
    fidelity: FidelitySettings = FidelitySettings()
    findings: tuple[str, ...] = ("mass", "calcification")
    """Findings whose zero-shot AUROC each evaluation compares before and after reconstruction."""

    @model_validator(mode="after")
    def _levels_rise(self) -> "SaeSettings":
        if list(self.levels) != sorted(set(self.levels)) or self.levels[0] < 1 or self.levels[-1] > self.num_neurons:
            raise ValueError(
                f"levels: expected rising numbers from 1 to num_neurons ({self.num_neurons}), found "
                f"{', '.join(map(str, self.levels))}"
            )
        return self

    @property
    def features(self) -> FeatureKind:
        """Patches of each image."""
        return PatchFeatures(num_patches=self.patches_per_image)

    @property
    def batch_size(self) -> int:
        """Patches of one optimizer step."""
        return self.images_per_step * self.patches_per_image

    @property
    def precision(self) -> Literal["fp32"]:
        """Always whole: among numbers of 8 bits many are equal, and which are the largest would be chance."""
        return "fp32"

    @property
    def level_names(self) -> tuple[str, ...]:
        """What the levels are called in numbers that leave a site."""
        return tuple(f"k{level}" for level in self.levels)
