"""What a worker is told of this site's privacy, and what it says of a visit's cost. Light: the parent reads it too."""

from pydantic import Field

from mammofed_shared.config.base import Settings
from mammofed_shared.config.privacy import DpSgdSettings

ACCOUNT_FILE = "privacy.json"
"""In the result of a visit that trained with DP-SGD."""
SECRET_FILE = "noise.secret"
"""Beside a visit's checkpoint: what its noise and its sampling are drawn from. A visit that begins anew draws anew."""


class Spent(Settings):
    """``steps`` of a Gaussian mechanism on a Poisson sample; noise in units of what one patient can change."""

    noise_multiplier: float = Field(gt=0)
    sample_rate: float = Field(gt=0, le=1)
    steps: int = Field(ge=1)


class DpSgdOrder(Settings):
    """How a visit is to protect each patient, and what was spent before it."""

    settings: DpSgdSettings
    spent: tuple[Spent, ...] = ()


class DpSgdAccount(Settings):
    """What a visit has cost, and ε at ``delta`` of all visits up to it."""

    cost: Spent
    clip_norm: float
    delta: float
    epsilon: float
