"""Heat maps of neurons whose place is known."""

import numpy as np
import pytest
import torch

from mammofed_shared.interpretability.heat_map import activation_norm, heat_map, up_sampled
from mammofed_shared.interpretability.sparse_maps import SparseMaps, sparse_maps
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder

# Two views of 2 × 2 cells, two neurons kept of each: neuron 7 fires in one cell, neuron 3 in four.
MAPS = SparseMaps(
    neurons=torch.tensor([[[7, 3], [3, 1], [3, 1], [5, 3]], [[3, 1], [1, 5], [1, 5], [1, 5]]]),
    values=torch.tensor([[[2.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], [[5.0, 0.0], *[[0.0, 0.0]] * 3]]),
    size=(2, 2),
)


def test_only_neurons_that_fire_are_active() -> None:
    assert MAPS.active().tolist() == [3, 7]
    assert MAPS.means(torch.tensor([3, 7])).tolist() == [[0.75, 0.5], [1.25, 0.0]]
    assert MAPS.means(torch.tensor([1])).tolist() == [[0], [0]]


def test_a_neurons_map_sums_to_its_contribution_where_it_fires() -> None:
    heat = heat_map(MAPS, {7: 0.3})

    assert heat[0, 0, 0] == pytest.approx(0.3)
    assert np.count_nonzero(heat) == 1


def test_maps_of_several_neurons_add_up_with_their_signs() -> None:
    heat = heat_map(MAPS, {7: 0.3, 3: -0.8, 1: 9.0})

    assert heat[0, 0, 0] == pytest.approx(0.3 - 0.1)
    assert heat[0, 0, 1] == pytest.approx(-0.1)
    assert heat[1, 0, 0] == pytest.approx(-0.5)
    assert heat.sum() == pytest.approx(0.3 - 0.8), "neuron 1 fires nowhere and adds nothing"


def test_an_up_sampled_map_has_its_maximum_in_the_same_place() -> None:
    heat = np.zeros((4, 3), np.float32)
    heat[2, 1] = 1
    large = up_sampled(heat, (40, 30))

    assert large.shape == (40, 30)
    assert large.max() <= 1
    row, column = np.unravel_index(large.argmax(), large.shape)
    assert (row // 10, column // 10) == (2, 1)


def test_a_vectors_length_is_how_strongly_the_encoder_fires() -> None:
    maps = np.zeros((1, 2, 2, 2), np.float32)
    maps[0, :, 1, 0] = 3, 4

    assert activation_norm(maps).tolist() == [[[0, 0], [5, 0]]]


def test_the_code_of_a_map_holds_the_largest_numbers_of_each_cell() -> None:
    torch.manual_seed(1)
    autoencoder = SparseAutoencoder(6, 20, [4, 20])
    maps_VChw = torch.randn(2, 6, 3, 2)
    found = sparse_maps(autoencoder, maps_VChw, 4)

    assert found.size == (3, 2)
    code_N = autoencoder.encode(maps_VChw[1, :, 2, 0][None])[0]
    kept = dict(zip(found.neurons[1, 4].tolist(), found.values[1, 4].tolist(), strict=True))
    assert kept == {neuron: code_N[neuron].item() for neuron in code_N.topk(4).indices.tolist()}
    neuron = int(code_N.argmax())
    assert found.of_neuron(neuron)[1, 2, 0] == code_N[neuron].item()
