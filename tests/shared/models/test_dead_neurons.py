"""Neurons that never fire, and what they are made of anew."""

import torch
from torch import Tensor

from mammofed_shared.models.dead_neurons import dead_neurons, mixed_directions, revive
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder

FEATURES = 32
PATIENTS = [f"p{number // 4}" for number in range(40)]
"""Ten patients of four patches each."""


def patches() -> Tensor:
    return torch.randn(40, FEATURES, generator=torch.Generator().manual_seed(1))


def directions(error: Tensor, count: int = 50, num_mixed: int = 5, seed: int = 1) -> Tensor:
    return mixed_directions(patches(), error, PATIENTS, count, num_mixed=num_mixed, seed=seed)


def weights_of(direction: Tensor) -> Tensor:
    """By which each patch stands in each direction; 40 patches of 32 features leave a choice, so only of the worst."""
    worst = torch.nn.functional.normalize(patches()[3::4], dim=1)
    return torch.linalg.lstsq(worst.T, direction.T).solution.T


def test_dead_is_what_was_silent_for_so_many_epochs_at_the_site_that_heard_it_last() -> None:
    """Of counters the coordinator keeps the largest."""
    here, there = torch.tensor([-5, 0, -3, -9]), torch.tensor([-1, -5, -3, -4])

    assert dead_neurons(here, 3).tolist() == [0, 2, 3]
    assert dead_neurons(torch.maximum(here, there), 3).tolist() == [2, 3]


def test_every_direction_mixes_the_worst_patches_of_so_many_patients() -> None:
    error = torch.arange(40.0)  # the last patch of each patient is the worst

    found = directions(error)

    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    weights = weights_of(found)
    torch.testing.assert_close(weights @ torch.nn.functional.normalize(patches()[3::4], dim=1), found)
    assert (weights.abs() > 1e-4).sum(dim=1).tolist() == [5, 5]


def test_no_patient_is_in_two_mixtures_which_together_could_be_taken_apart() -> None:
    for seed in range(20):
        weights = weights_of(directions(torch.arange(40.0), num_mixed=2, seed=seed))
        assert (weights.abs() > 1e-4).sum(dim=0).tolist() == [1] * 10


def test_patients_that_are_given_back_badly_are_drawn_more_often() -> None:
    error = torch.zeros(40)
    error[3::4] = 0.5
    error[3], error[7] = 3.0, 1.0

    first = [weights_of(directions(error, 1, 2, seed)).abs() > 1e-4 for seed in range(400)]
    drawn = torch.cat(first).sum(dim=0)

    assert bool(drawn[0] > 2 * drawn[1]) and bool(drawn[1] > 2 * drawn[2:].max())


def test_each_direction_points_to_one_of_its_patches() -> None:
    found = directions(torch.arange(40.0))

    along = found @ torch.nn.functional.normalize(patches()[3::4], dim=1).T
    assert bool((along.amax(dim=1) > 0.2).all())


def test_equal_seeds_mix_alike_and_others_do_not() -> None:
    error = torch.arange(40.0)

    assert torch.equal(directions(error), directions(error))
    assert not torch.equal(directions(error), directions(error, seed=2))


def test_with_too_few_patients_or_without_errors_there_are_none() -> None:
    assert len(directions(torch.ones(40), num_mixed=10)) == 1
    assert len(directions(torch.ones(40), num_mixed=11)) == 0
    assert len(directions(torch.zeros(40), num_mixed=1)) == 0
    assert len(directions(torch.ones(40), count=0)) == 0


def test_revived_neurons_fire_and_all_others_stay_as_they_were() -> None:
    torch.manual_seed(0)
    model = SparseAutoencoder(FEATURES, 64, (4, 64))
    dead = torch.tensor([3, 7])
    with torch.no_grad():
        model.encoder_bias[dead] = -100.0
        model.heard[dead] = -6
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert float(model.encode(patches())[:, dead].max()) == 0.0

    revive(model, dead, directions(torch.arange(40.0), count=2))

    assert bool((model.encode(patches())[:, dead].amax(dim=0) > 0).all())
    others = torch.ones(64, dtype=torch.bool)
    others[dead] = False
    for name, tensor in model.state_dict().items():
        rows = others if len(tensor) == 64 else slice(None)
        assert torch.equal(tensor[rows], before[name][rows]), name
    assert model.heard[dead].tolist() == [0, 0]
    mean = before["encoder"][others].norm(dim=1).mean()
    torch.testing.assert_close(model.encoder.detach()[dead].norm(dim=1), 0.2 * mean.expand(2))


def test_no_patch_of_a_mixture_outweighs_the_others() -> None:
    patches_PF = torch.eye(24, 32)
    patients = [f"p{number}" for number in range(24)]
    found_RF = torch.cat(
        [mixed_directions(patches_PF, torch.ones(24), patients, 500, num_mixed=10, seed=seed) for seed in range(250)]
    )
    assert len(found_RF) == 500
    assert 10**-0.5 < float((found_RF @ patches_PF.T).abs().max()) < 0.35
