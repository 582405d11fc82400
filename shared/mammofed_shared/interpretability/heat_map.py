"""Where the neurons that drive a risk score fire: their contributions, laid out over the cells of the maps.

Source: Mammo-FM, Image-Level Interpretability: a neuron's activation at each cell. Here each neuron's activation is
scaled so that it sums to the neuron's Shapley value over all views. So maps of several neurons add up, the whole map
sums to their part of the risk, and a neuron that fires everywhere points nowhere.

Shapes: V views, h rows and w columns of the encoder's map, H rows and W columns of an image.
"""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from mammofed_shared.interpretability.sparse_maps import SparseMaps


def heat_map(maps: SparseMaps, contributions: Mapping[int, float]) -> NDArray[np.float32]:
    """What each cell adds to the risk by these neurons, (V, h, w); positive raises it, negative lowers it.

    Args:
        contributions: neuron → its Shapley value. A neuron that fires nowhere in these maps adds nothing.
    """
    heat_Vhw = np.zeros((len(maps.values), *maps.size), np.float32)
    for neuron, contribution in contributions.items():
        fires_Vhw = maps.of_neuron(neuron)
        total = float(fires_Vhw.sum())
        if total > 0:
            heat_Vhw += fires_Vhw * np.float32(contribution / total)
    return heat_Vhw


def up_sampled(map_hw: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A map in the size of its image (H, W), bilinear between the centres of the cells; values stay in its range."""
    height, width = size
    return np.asarray(cv2.resize(map_hw, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def activation_norm(maps_VChw: NDArray[np.float32]) -> NDArray[np.float32]:
    """How strongly the raw encoder fires at each cell, (V, h, w): the length of its feature vector, which knows of no
    risk; what an explanation must do better than."""
    return np.asarray(np.linalg.norm(maps_VChw, axis=1), np.float32)
