"""How the updates of sites that trained at once become the next state: the key ``strategy`` of a phase.

Each strategy is a model of its own, so that an option which it does not read is an unknown key. Formulas and when to
use which: docs/strategies.md.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from mammofed_shared.config.base import Settings


class _MeanSettings(Settings):
    clip_norm: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Largest L2 norm, over all parameters, of what a site's update changes in the state; a larger change is scaled
    down to it. Empty: none. Bounds what one site can do in a round; no protection of privacy."""


class FedAvgSettings(_MeanSettings):
    """The weighted mean (McMahan et al. 2017)."""

    name: Literal["fedavg"] = "fedavg"


class FedProxSettings(_MeanSettings):
    """The weighted mean, of visits whose loss holds the site near the state that it received (Li et al. 2020)."""

    name: Literal["fedprox"]
    mu: float = Field(gt=0, allow_inf_nan=False)
    """Weight of the term μ/2 · ‖w − w_received‖²."""


class _ServerOptimizerSettings(_MeanSettings):
    server_learning_rate: float = Field(gt=0, allow_inf_nan=False)
    """Length of the coordinator's step, η in the paper. About the size of a weight's change in a round."""
    beta_1: float = Field(0.9, ge=0, lt=1)
    """How much of the first moment a round keeps."""
    beta_2: float = Field(0.99, ge=0, lt=1)
    """How much of the second moment a round keeps."""
    tau: float = Field(1e-3, gt=0, allow_inf_nan=False)
    """Changes that are small against it are taken as they are; large ones are scaled to one size."""


class FedAdamSettings(_ServerOptimizerSettings):
    """The coordinator steps by Adam along the mean change (Reddi et al. 2021)."""

    name: Literal["fedadam"]


class FedYogiSettings(_ServerOptimizerSettings):
    """The coordinator steps by Yogi along the mean change (Reddi et al. 2021)."""

    name: Literal["fedyogi"]


class ScaffoldSettings(Settings):
    """The mean, of visits whose gradients are corrected for what is particular to a site (Karimireddy et al. 2020)."""

    name: Literal["scaffold"]


class TrimmedMeanSettings(_MeanSettings):
    """Value by value the mean without the largest and smallest (Yin et al. 2018); all sites count alike."""

    name: Literal["trimmed-mean"]
    trim: float = Field(0.2, gt=0, lt=0.5)
    """Share of the sites that is left out at each end, rounded down to whole sites."""

    def num_trimmed(self, num_sites: int) -> int:
        """How many sites are left out at each end."""
        return int(self.trim * num_sites)

    def check_num_sites(self, num_sites: int) -> None:
        """Refuse so few sites that nothing would be trimmed.

        Raises:
            ValueError: with the smallest share that trims one.
        """
        if num_sites < 3:
            raise ValueError(f"strategy trimmed-mean needs at least 3 sites, {num_sites} train at once")
        if not self.num_trimmed(num_sites):
            least = -(-1000 // num_sites) / 1000
            raise ValueError(
                f"strategy trimmed-mean: trim {self.trim:g} of {num_sites} sites is none; write at least {least:g}"
            )


StrategySettings: TypeAlias = Annotated[
    FedAvgSettings | FedProxSettings | FedAdamSettings | FedYogiSettings | ScaffoldSettings | TrimmedMeanSettings,
    Field(discriminator="name"),
]
"""Union of all strategies, told apart by ``name``."""
