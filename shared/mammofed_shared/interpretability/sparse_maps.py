"""Which neurons of the sparse autoencoder fire where in an exam: its code of level k, cell by cell of the map.

Kept as the k largest numbers of each cell, so that an exam at full resolution takes 3 MB, not the 365 MB of all
neurons at all places.

Shapes: V views, h rows and w columns of the map, P = h·w cells (row by row), K kept neurons of a cell, C channels, N
neurons, A active neurons.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder

_CELLS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class SparseMaps:
    """The code of each cell of some maps.

    ``neurons`` (V, P, K) int64 and ``values`` (V, P, K) float32, at least 0, and 0 where fewer than K neurons fire;
    ``size`` is (rows, columns) of a map.
    """

    neurons: Tensor
    values: Tensor
    size: tuple[int, int]

    def active(self) -> Tensor:
        """The neurons (A,) that fire anywhere, rising. All others change nothing, whatever becomes of them."""
        return cast(Tensor, torch.unique(self.neurons[self.values > 0]))

    def means(self, neurons_A: Tensor) -> Tensor:
        """The mean number of each of these neurons over the cells of each view, (V, A) float32."""
        if not len(neurons_A):
            return self.values.new_zeros((len(self.values), 0))
        places, fires = self.places(neurons_A)
        mean_VA = self.values.new_zeros((len(self.values), len(neurons_A)))
        mean_VA.scatter_add_(1, places.flatten(1), torch.where(fires, self.values, 0.0).flatten(1))
        return mean_VA / self.neurons.shape[1]

    def places(self, neurons_A: Tensor) -> tuple[Tensor, Tensor]:
        """Of each kept neuron its place in a rising list, (V, P, K), and whether it fires and is in that list; else
        the place means nothing."""
        places = torch.searchsorted(neurons_A, self.neurons).clamp(max=len(neurons_A) - 1)
        return places, (neurons_A[places] == self.neurons) & (self.values > 0)

    def of_neuron(self, neuron: int) -> NDArray[np.float32]:
        """Where one neuron fires and how much, (V, h, w)."""
        found_VP = torch.where(self.neurons == neuron, self.values, 0.0).sum(dim=2)
        return found_VP.view(-1, *self.size).cpu().numpy()


def sparse_maps(autoencoder: SparseAutoencoder, maps_VChw: Tensor, level: int) -> SparseMaps:
    """The code of level ``level`` of every cell: its largest numbers and their neurons."""
    size = (maps_VChw.shape[2], maps_VChw.shape[3])
    cells_VPC = maps_VChw.flatten(2).transpose(1, 2)
    found = [largest for cells_PC in cells_VPC for largest in _largest(autoencoder, cells_PC, level)]
    shape = (*cells_VPC.shape[:2], -1)
    return SparseMaps(
        torch.cat([indices for _, indices in found]).view(shape),
        torch.cat([values for values, _ in found]).view(shape),
        size,
    )


def _largest(autoencoder: SparseAutoencoder, cells_PC: Tensor, level: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(cells_PC), _CELLS_AT_ONCE):
        code_PN = autoencoder.encode(cells_PC[start : start + _CELLS_AT_ONCE])
        largest = code_PN.topk(min(level, code_PN.shape[1]), dim=1)
        yield largest.values, largest.indices
