"""The running choice of images, against sorting all of them."""

import numpy as np
import torch

from mammofed_shared.interpretability.neuron_atlas import TopImages
from mammofed_shared.interpretability.sparse_maps import SparseMaps

NUM_NEURONS, NUM_TOP, NUM_IMAGES = 12, 4, 30


def drawn(random: np.random.Generator) -> SparseMaps:
    """A map of 3 × 2 cells that keeps 3 of the neurons; some of the kept do not fire."""
    neurons = np.stack([random.choice(NUM_NEURONS - 1, 3, replace=False) for _ in range(6)])
    values = random.integers(0, 6, (6, 3)).astype(np.float32)
    return SparseMaps(torch.from_numpy(neurons)[None], torch.from_numpy(values)[None], (3, 2))


def dense(maps: SparseMaps) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return torch.zeros(6, NUM_NEURONS).scatter_(1, maps.neurons[0], maps.values[0]).numpy()


def filled() -> tuple[TopImages, list[SparseMaps]]:
    random = np.random.default_rng(7)
    exams = [drawn(random) for _ in range(NUM_IMAGES)]
    top = TopImages(NUM_NEURONS, NUM_TOP)
    for number, maps in enumerate(exams):
        top.add(number, maps)
    return top, exams


def test_a_neuron_has_the_images_in_which_it_fires_most() -> None:
    top, exams = filled()
    for neuron in range(NUM_NEURONS):
        highest = [(-dense(maps)[:, neuron].max(), number) for number, maps in enumerate(exams)]
        expected = [(number, -value) for value, number in sorted(highest) if value < 0][:NUM_TOP]

        assert [(image, value) for image, _, value in top.of_neuron(neuron)] == expected


def test_the_cell_is_where_it_fires_most() -> None:
    top, exams = filled()
    for image, cell, value in top.of_neuron(0):
        assert dense(exams[image])[cell, 0] == value == dense(exams[image])[:, 0].max()


def test_the_most_active_neurons_come_first_and_silent_ones_never() -> None:
    top, exams = filled()
    activity = sum(dense(maps).sum(axis=0) for maps in exams)

    np.testing.assert_allclose(top.activity, activity)
    order = top.busiest(NUM_NEURONS)
    assert activity[order].tolist() == sorted(activity[order], reverse=True)
    assert NUM_NEURONS - 1 not in order, "the fixture never lets it fire"
    assert top.of_neuron(NUM_NEURONS - 1) == []
    assert top.busiest(3) == order[:3]


def test_a_choice_that_was_written_down_goes_on_to_the_same() -> None:
    whole, exams = filled()
    first = TopImages(NUM_NEURONS, NUM_TOP)
    for number, maps in enumerate(exams[:11]):
        first.add(number, maps)
    later = TopImages.from_state(first.state())
    assert later.map_size == (3, 2)
    for number, maps in enumerate(exams[11:], 11):
        later.add(number, maps)

    assert later.num_images == NUM_IMAGES
    assert all((later.state()[name] == array).all() for name, array in whole.state().items())


def test_an_image_that_cannot_be_read_is_counted_and_changes_nothing_else() -> None:
    top, _ = filled()
    before = top.state()
    top.pass_over()

    assert top.num_images == NUM_IMAGES + 1
    assert all((top.state()[name] == array).all() for name, array in before.items() if name != "sizes")
