"""What the neurons of the sparse autoencoder stand for at a site: the images that make each fire most.

A running choice over any number of images, one after the other: what is held is of the number of neurons, 3 MB for
16,384 of them, and can be written down at any moment to go on from.

Shapes: N neurons, T images of a neuron, K kept neurons of a cell.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.interpretability.sparse_maps import SparseMaps

NO_IMAGE = -1


class TopImages:
    """Of every neuron the images in which its highest number is largest, and how active it is at all.

    ``values`` (N, T) float32, falling; ``images`` (N, T) int64, ``NO_IMAGE`` where a neuron has fired in fewer;
    ``cells`` (N, T) int64, where in the map it did; ``activity`` (N,) float64, the sum of its numbers over all cells;
    ``num_images``: how many were looked at; ``map_size``: (rows, columns) of their maps.
    """

    def __init__(self, num_neurons: int, num_top: int) -> None:
        self.values = np.zeros((num_neurons, num_top), np.float32)
        self.images = np.full((num_neurons, num_top), NO_IMAGE, np.int64)
        self.cells = np.zeros((num_neurons, num_top), np.int64)
        self.activity = np.zeros(num_neurons)
        self.num_images = 0
        self.map_size = (0, 0)

    def add(self, image: int, maps: SparseMaps) -> None:
        """Look at one image; of equal numbers the earlier image stays before the later one.

        Args:
            image: its number, by which it is found again.
            maps: of this image alone.
        """
        neurons_M, values_M, cells_M = _firing(maps)
        self.activity += np.bincount(neurons_M, values_M, minlength=len(self.activity))
        # Sorted by neuron and, within one, by falling number: its first is its highest.
        order = np.lexsort((cells_M, -values_M, neurons_M))
        neurons, first = np.unique(neurons_M[order], return_index=True)
        highest = order[first]
        is_new = values_M[highest] > self.values[neurons, -1]
        self._insert(neurons[is_new], image, values_M[highest][is_new], cells_M[highest][is_new])
        self.num_images += 1
        self.map_size = maps.size

    def pass_over(self) -> None:
        """Count an image that cannot be read."""
        self.num_images += 1

    def busiest(self, count: int) -> list[int]:
        """The neurons that are most active, the most active first; none that never fired."""
        order = np.argsort(-self.activity, kind="stable")[:count]
        return [int(neuron) for neuron in order if self.activity[neuron] > 0]

    def of_neuron(self, neuron: int) -> list[tuple[int, int, float]]:
        """Image, cell and number of a neuron's images, the highest first."""
        found = zip(self.images[neuron], self.cells[neuron], self.values[neuron], strict=True)
        return [(int(image), int(cell), float(value)) for image, cell, value in found if image != NO_IMAGE]

    def state(self) -> dict[str, NDArray[Any]]:
        """All of it, as arrays."""
        return {
            "values": self.values,
            "images": self.images,
            "cells": self.cells,
            "activity": self.activity,
            "sizes": np.array([self.num_images, *self.map_size], np.int64),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> "TopImages":
        """What ``state`` gave."""
        made = cls(*state["values"].shape)
        made.values, made.images, made.cells = (state[name].copy() for name in ("values", "images", "cells"))
        made.activity = state["activity"].copy()
        made.num_images, *size = (int(number) for number in state["sizes"])
        made.map_size = (size[0], size[1])
        return made

    def _insert(
        self, neurons: NDArray[np.int64], image: int, values: NDArray[np.float32], cells: NDArray[np.int64]
    ) -> None:
        images = np.full(len(neurons), image, np.int64)
        pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [
            (self.values, values),
            (self.images, images),
            (self.cells, cells),
        ]
        order = np.argsort(-np.column_stack([self.values[neurons], values]), axis=1, kind="stable")[:, :-1]
        for held, new in pairs:
            held[neurons] = np.take_along_axis(np.column_stack([held[neurons], new]), order, axis=1)


def _firing(maps: SparseMaps) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Neuron, number and cell of everything that fires in one image."""
    values_PK, neurons_PK = maps.values[0].cpu().numpy(), maps.neurons[0].cpu().numpy()
    cells_M, kept_M = np.nonzero(values_PK)
    return neurons_PK[cells_M, kept_M], values_PK[cells_M, kept_M], cells_M
