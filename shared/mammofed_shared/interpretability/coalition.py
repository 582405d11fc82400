"""What an exam's images would be if only some neurons of their code were on: the features that a head then reads.

x̂ = Σ a_n·d_n + bias at each cell of the map, over the neurons n that are on; then pooled over the cells as the
encoder pools. The mean of the cells is linear in the code, so it needs no map; the maximum needs each, and is taken
part by part, in bounded memory.

Shapes: M coalitions, A active neurons, V views, P cells of a view, K kept neurons of a cell, C channels, F features.
"""

from typing import Literal

import torch
from torch import Tensor

from mammofed_shared.interpretability.sparse_maps import SparseMaps
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder

Pooling = Literal["avg", "avgmax"]
_FLOATS_AT_ONCE = 2**25
"""Of one part of the maps: 128 MB."""
_MOST_CHANGES = 4
"""Neurons by which coalitions differ from the one before, in the mean."""


class Coalitions:
    """One exam, of which some active neurons can be turned off.

    Args:
        pooling: as ``ImageEncoder`` pools.
    """

    def __init__(self, maps: SparseMaps, autoencoder: SparseAutoencoder, pooling: Pooling) -> None:
        self.neurons_A = maps.active()
        """The neurons that fire in this exam, rising: the columns of a mask."""
        self._pooling = pooling
        self._mean_VA = maps.means(self.neurons_A)
        with torch.no_grad():
            self._added_AC = autoencoder.dictionary[self.neurons_A]
            self._bias_C = autoencoder.pre_bias.detach()
        if pooling == "avgmax" and len(self.neurons_A):
            self._places_VPK, fires_VPK = maps.places(self.neurons_A)
            self._values_VPK = torch.where(fires_VPK, maps.values, 0.0)

    def pooled(self, on_MA: Tensor) -> Tensor:
        """Features (M, V, F) of each coalition.

        Args:
            on_MA: which neurons are on, bool.
        """
        mean_MVC = self._means(on_MA)
        if self._pooling == "avg":
            return mean_MVC + self._bias_C
        if not len(self.neurons_A):
            return torch.cat([mean_MVC, mean_MVC], dim=2) + torch.cat([self._bias_C, self._bias_C])
        largest_MVC = torch.stack([self._largest(on_MA, view) for view in range(len(self._mean_VA))], dim=1)
        return torch.cat([mean_MVC + self._bias_C, largest_MVC + self._bias_C], dim=2)

    def without(self, neurons: list[int]) -> Tensor:
        """The coalition (1, A) of all active neurons but these."""
        off = torch.tensor(neurons, dtype=torch.int64, device=self.neurons_A.device)
        return ~torch.isin(self.neurons_A, off)[None]

    def _means(self, on_MA: Tensor) -> Tensor:
        """The mean (M, V, C) of each channel over the cells, without the bias.

        Coalitions of one order differ by one neuron from each to the next, so each is made of the one before: measured
        at full resolution, a sixth of the time of making all of them anew.
        """
        changed = on_MA[1:] ^ on_MA[:-1]
        if int(changed.sum()) > _MOST_CHANGES * len(on_MA):
            return (on_MA[:, None] * self._mean_VA) @ self._added_AC
        rows_J, neurons_J = changed.nonzero(as_tuple=True)
        sign_J = torch.where(on_MA[rows_J + 1, neurons_J], 1.0, -1.0)
        added_JVC = (self._mean_VA[:, neurons_J] * sign_J).T[..., None] * self._added_AC[neurons_J, None]
        first_1VC = (on_MA[:1, None] * self._mean_VA) @ self._added_AC
        steps_MVC = torch.cat([first_1VC, first_1VC.new_zeros((len(changed), *first_1VC.shape[1:]))])
        return steps_MVC.index_add_(0, rows_J + 1, added_JVC).cumsum(dim=0)

    def _largest(self, on_MA: Tensor, view: int) -> Tensor:
        """The maximum (M, C) of each channel over the cells, without the bias."""
        places_PK, values_PK = self._places_VPK[view], self._values_VPK[view]
        num_kept, num_channels = places_PK.shape[1], self._added_AC.shape[1]
        at_once = max(1, _FLOATS_AT_ONCE // (num_channels * num_kept + len(on_MA) * (num_kept + num_channels)))
        largest_MC = torch.full((len(on_MA), num_channels), -torch.inf, device=places_PK.device)
        on_AM = on_MA.T.float().contiguous()  # rows are gathered 40 times faster than columns
        for start in range(0, len(places_PK), at_once):
            places = places_PK[start : start + at_once]
            weights_PKM = on_AM[places] * values_PK[start : start + at_once, :, None]
            cells_PMC = torch.bmm(weights_PKM.transpose(1, 2), self._added_AC[places])
            largest_MC = torch.maximum(largest_MC, cells_PMC.amax(dim=0))
        return largest_MC
