"""What a sparse autoencoder minimises: how badly its nested codes give the features back, and how large the code is.

Source: Mammo-FM, Matryoshka Sparse Autoencoder Training, as variant ``paper``. Variant ``nmse`` is what the public
Matryoshka autoencoders minimise (Zaigrajew, Baniecki, Biecek 2025): the normalised error of Gao et al. 2024, *Scaling
and evaluating sparse autoencoders*, without ℓ1.
Shapes: B samples.
"""

from typing import Literal

from torch import Tensor

_LEAST_POWER = 1e-8
"""Features that are all 0 count by this squared length."""


def sparsity_loss(
    error_B: Tensor, sum_B: Tensor, power_B: Tensor, *, variant: Literal["paper", "nmse"], l1_weight: float
) -> Tensor:
    """Loss of each sample, (B,).

    ``paper``: ‖x − x̂‖² + ``l1_weight`` · ‖z‖₁, so in the unit of the features a neuron is worth firing from
    ``l1_weight`` / 2 on. ``nmse``: ‖x − x̂‖² / ‖x‖².

    Args:
        error_B: squared error, mean over the nested codes.
        sum_B: ℓ1 of the whole code.
        power_B: squared length of the features.
    """
    if variant == "paper":
        return error_B + l1_weight * sum_B
    return error_B / power_B.clamp(min=_LEAST_POWER)


def explained_variance(error: Tensor, power: Tensor, total_F: Tensor, count: int) -> Tensor:
    """Share of the features' variance that reconstructions explain: at most 1, below 0 where the mean would do better.

    Args:
        error: sum of squared errors over samples, one or several.
        power: sum of squared lengths over the same samples, scalar.
        total_F: sum of their features.
        count: their number; the variance is 0 (and the answer 1) where all are the same and given back.
    """
    variance = power - total_F.square().sum() / count
    return 1 - error / variance.clamp(min=_LEAST_POWER)
