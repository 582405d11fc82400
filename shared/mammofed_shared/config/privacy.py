"""What a site does to its updates so that they tell less: its own decision, which the coordinator cannot loosen.

What each option protects, and what it does not, is in docs/privacy.md.
"""

from typing import Annotated

from pydantic import Field, model_validator

from mammofed_shared.config.base import Settings
from mammofed_shared.config.tasks import TaskSettings
from mammofed_shared.config.text_adaptation import TextSettings

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Delta = Annotated[float, Field(gt=0, le=1e-2)]


class UpdateNoiseSettings(Settings):
    """Noise on every update, which protects the site's contribution as a whole."""

    clip_norm: Positive
    """Largest L2 norm of (update − received state), over all floating-point tensors together; a longer one is shortened
    to it."""
    noise_multiplier: Positive
    """Standard deviation of the noise on each value, in units of `clip_norm`."""
    delta: Delta = 1e-5
    """The probability that the promise of ε does not cover."""
    largest_epsilon: Positive
    """The budget: a visit after which ε over all visits of this site would be above it is refused."""


class DpSgdSettings(Settings):
    """Noise in every step of training, which protects each patient (DP-SGD, Abadi et al. 2016)."""

    clip_norm: Positive
    """Largest L2 norm of what one patient adds to a step's gradient."""
    noise_multiplier: Positive
    """Standard deviation of the noise on each value of a step's summed gradient, in units of `clip_norm`."""
    delta: Delta = 1e-5
    """The probability that the promise of ε does not cover; must be below 1 / number of patients."""
    largest_epsilon: Positive
    """The budget: a visit after which ε over all visits of this site would be above it is refused."""


class PrivacySettings(Settings):
    """Clipping and noise of this site's updates; none unless you say otherwise."""

    clip_norm: Positive | None = None
    """Largest L2 norm of an update; a longer one is shortened to it. It bounds what one site can do to the joint model
    and is not private: nothing is hidden by it."""
    update_noise: UpdateNoiseSettings | None = None
    """Protects the site's contribution as a whole."""
    dp_sgd: DpSgdSettings | None = None
    """Protects each patient. Only for tasks of whose gradient each patient's part is known: `text`."""

    @model_validator(mode="after")
    def _one_kind_of_noise(self) -> "PrivacySettings":
        if self.update_noise and self.dp_sgd:
            raise ValueError("privacy: choose update_noise (the whole contribution) or dp_sgd (each patient), not both")
        if self.update_noise and self.clip_norm is not None:
            raise ValueError("privacy.clip_norm: update_noise has a clip_norm of its own; leave one of them out")
        return self

    @property
    def is_noisy(self) -> bool:
        """Whether a budget is kept, so that nothing of the training data may leave beside what the noise covers."""
        return self.update_noise is not None or self.dp_sgd is not None


def dp_sgd_obstacle(task: TaskSettings) -> str | None:
    """Why DP-SGD cannot be had with a task's settings, and what to change; None where it can."""
    if task.name == "pretrain":
        return (
            "the loss of task pretrain contrasts each sample with all others of its batch, and batch norm mixes them, "
            "so no part of the gradient is one patient's alone and none can be clipped; update_noise works with it"
        )
    if not isinstance(task, TextSettings):
        return f"it knows the patients of the task text only; update_noise works with task {task.name}"
    if task.swapped_share > 0:
        return (
            "task.swapped_share shows a report with another patient's impression, so one sample is of two patients: "
            "the run must set task.swapped_share to 0"
        )
    if task.precision == "fp16":
        return "task.precision fp16 scales the loss, and with it what one patient adds: the run must take bf16 or fp32"
    return None


def update_noise_obstacle(task: TaskSettings) -> str | None:
    """Why noise on updates cannot be had with a task's settings, and what to change; None where it can."""
    if task.name == "pretrain" and task.image_encoder.batch_norm != "frozen":
        return (
            "running statistics of batch norm would leave with the update, and with noise on them no model works: the "
            "run must set task.image_encoder.batch_norm to frozen"
        )
    if task.name == "sae" and task.dead_after_epochs:
        return (
            "which neurons fire would leave with the update without noise, and dead ones would be made of patches: the "
            "run must set task.dead_after_epochs to 0"
        )
    return None
