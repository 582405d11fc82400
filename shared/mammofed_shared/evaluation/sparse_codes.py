"""How well the nested codes of a sparse autoencoder give patches back, as sums over any number of patches.

Shapes: B patches, F features, N neurons, L levels.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from mammofed_shared.losses.sparsity import explained_variance
from mammofed_shared.models.nested_codes import keep_largest
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder


class CodeSums:
    """Sums in float64 on the model's device, so that no order of patches moves a digit that is told."""

    def __init__(self, model: SparseAutoencoder) -> None:
        self._model = model
        num_neurons, num_features = model.encoder.shape
        device = model.encoder.device
        self._error_L = torch.zeros(len(model.levels), dtype=torch.float64, device=device)
        self._power = torch.zeros((), dtype=torch.float64, device=device)
        self._total_F = torch.zeros(num_features, dtype=torch.float64, device=device)
        self._fired_LN = torch.zeros(len(model.levels), num_neurons, dtype=torch.bool, device=device)
        self._num_patches = 0

    @torch.no_grad()
    def add(self, features_BF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add patches; gives what the loss needs of each: mean error over the levels, ℓ1 and squared length, (B,)."""
        model, code_BN, dictionary_NF = self._model, self._model.encode(features_BF), self._model.dictionary
        wanted_BF = features_BF - model.pre_bias
        errors_LB = []
        for number, level in enumerate(model.levels):
            kept_BN = keep_largest(code_BN, level)
            errors_LB.append((wanted_BF - kept_BN @ dictionary_NF).square().sum(dim=1))
            self._fired_LN[number] |= kept_BN.amax(dim=0) > 0
        errors = torch.stack(errors_LB)
        self._error_L += errors.double().sum(dim=1)
        self._power += features_BF.double().square().sum()
        self._total_F += features_BF.double().sum(dim=0)
        self._num_patches += len(features_BF)
        return errors.mean(dim=0), code_BN.sum(dim=1), features_BF.square().sum(dim=1)

    def numbers(self, names: Iterable[str]) -> dict[str, float]:
        """``explained_variance/…`` and ``dead_share/…`` of each level by its name; empty without patches.

        The dead share of a level is the share of neurons that stand in no code of that level.
        """
        if not self._num_patches:
            return {}
        explained_L = explained_variance(self._error_L, self._power, self._total_F, self._num_patches)
        dead_L = 1 - self._fired_LN.double().mean(dim=1)
        told: dict[str, float] = {}
        for name, explained, dead in zip(names, explained_L.tolist(), dead_L.tolist(), strict=True):
            told |= {f"explained_variance/{name}": explained, f"dead_share/{name}": dead}
        return told
