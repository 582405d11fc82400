"""Neurons that never fire, and new rows for them, made of patches that were given back badly.

After Bricken et al. 2023, *Towards Monosemanticity*, appendix Neuron Resampling, with one difference: there a new
neuron is one sample's direction. Here that would be a patient's patch, laid down in weights that leave the hospital; so
each is a random mixture of patches of several patients.

Shapes: B samples, F features, N neurons, P patients, R revived neurons.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder

_FRESH_LENGTH = 0.2
"""Length of a new encoder row, as a share of the mean of those that fire: it shall not drown them out."""


def dead_neurons(heard_N: Tensor, after_epochs: int) -> Tensor:
    """Numbers of the neurons that were silent for so many epochs, rising.

    Args:
        heard_N: as ``SparseAutoencoder`` has it.
        after_epochs: at least as many as all sites together train in a round, so that a neuron that only one site's
            patches fire is not taken from it.
    """
    return torch.nonzero(heard_N <= -after_epochs).flatten()


def mixed_directions(
    wanted_BF: Tensor, error_B: Tensor, patients: Sequence[str], count: int, *, num_mixed: int, seed: int
) -> Tensor:
    """Unit vectors (R, F), each of one patch each of ``num_mixed`` patients, added or taken off nearly alike.

    Patients are drawn with probability proportional to the squared error of their worst patch, and have that patch in
    one mixture: in several, whoever knows the weights could take the mixtures apart. Each vector points to at least one
    of its patches, so that a neuron with it fires.

    Args:
        wanted_BF: features without the autoencoder's bias.
        error_B: how badly each was given back; of a patch without error nothing is learnt.
        patients: of each sample.
        count: how many are wanted; R is what so many patients can make of them, perhaps 0.
    """
    worst: dict[str, int] = {}
    errors = error_B.tolist()
    for row, patient in enumerate(patients):
        if errors[row] > (errors[worst[patient]] if patient in worst else 0):
            worst[patient] = row
    count = min(count, len(worst) // num_mixed)
    if not count:
        return wanted_BF[:0]
    rows_P = torch.tensor(list(worst.values()))
    random = torch.Generator().manual_seed(seed)
    chance_P = error_B.detach().double().cpu()[rows_P].square()
    drawn_RM = torch.multinomial(chance_P, count * num_mixed, replacement=False, generator=random).view(
        count, num_mixed
    )
    # Nearly equal weights: normal ones give every so often what is, but for a little, one patient's patch. Not wholly
    # equal ones: like patches of two patients would cancel to nothing.
    sign_RM = torch.randint(2, drawn_RM.shape, generator=random) * 2 - 1
    strength_RM = sign_RM * (1 + 0.1 * torch.rand(drawn_RM.shape, generator=random))
    mixture_RP = torch.zeros(count, len(rows_P)).scatter_(1, drawn_RM, strength_RM).to(wanted_BF.device)
    patches_PF = F.normalize(wanted_BF[rows_P.to(wanted_BF.device)], dim=1)
    direction_RF = F.normalize(mixture_RP @ patches_PF, dim=1)
    along_RP = direction_RF @ patches_PF.T * (mixture_RP != 0)
    is_backward_R = along_RP.amax(dim=1) < -along_RP.amin(dim=1)
    return torch.where(is_backward_R[:, None], -direction_RF, direction_RF)


@torch.no_grad()
def revive(model: SparseAutoencoder, neurons_R: Tensor, direction_RF: Tensor) -> None:
    """Make neurons anew: each adds its direction and fires where features point there. They count as just heard."""
    lengths_N = model.encoder.norm(dim=1)
    fires_N = model.heard >= 0
    length = lengths_N[fires_N].mean() if bool(fires_N.any()) else lengths_N.mean()
    model.encoder[neurons_R] = _FRESH_LENGTH * length * direction_RF
    model.decoder[neurons_R] = direction_RF
    model.encoder_bias[neurons_R] = 0.0
    model.heard[neurons_R] = 0
