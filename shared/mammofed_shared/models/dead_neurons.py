"""Neurons that never fire, and new rows for them: directions of samples that were given back badly.

Source: Bricken et al. 2023, *Towards Monosemanticity*, appendix Neuron Resampling.
Shapes: B samples, F features, N neurons, R revived neurons.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder

_FRESH_LENGTH = 0.2
"""Length of a new encoder row, as a share of the mean of those that fire: it shall not drown them out."""


def dead_neurons(heard_N: Tensor, *, steps_here: int, window: int) -> Tensor:
    """Numbers of the neurons that may be made anew, rising.

    A neuron must have been silent for ``window`` steps before this visit, at whichever sites they were, and in all
    steps of this visit: one that only another site's patches fire is that site's, and one that only this site's fire
    is this one's.

    Args:
        heard_N: as ``SparseAutoencoder`` has it.
        steps_here: of this visit, so far.
    """
    return torch.nonzero(heard_N <= -(steps_here + window)).flatten()


def badly_reconstructed(error_B: Tensor, count: int, seed: int) -> Tensor:
    """At most ``count`` different samples, drawn with probability proportional to the square of their error.

    A sample without error is never drawn.
    """
    chance_B = error_B.detach().double().cpu().square()
    most = min(count, int((chance_B > 0).sum()))
    if most == 0:
        return torch.zeros(0, dtype=torch.int64)
    random = torch.Generator().manual_seed(seed)
    return torch.multinomial(chance_B, most, replacement=False, generator=random)


@torch.no_grad()
def fresh_rows(model: SparseAutoencoder, features_RF: Tensor) -> tuple[Tensor, Tensor]:
    """Encoder and decoder rows (R, F) of neurons that fire on these samples, with an encoder bias of 0."""
    direction_RF = F.normalize(features_RF - model.pre_bias, dim=1)
    lengths_N = model.encoder.norm(dim=1)
    fires_N = model.heard == 0
    length = lengths_N[fires_N].mean() if bool(fires_N.any()) else lengths_N.mean()
    return _FRESH_LENGTH * length * direction_RF, direction_RF
