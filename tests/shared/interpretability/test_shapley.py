"""Shapley values against their definition over all subsets."""

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mammofed_shared.interpretability.shapley import Worth, shapley_values


def small_risk(num_players: int) -> Worth:
    """A head with a bend, so that what a player adds hangs on who is in already."""
    torch.manual_seed(1)
    head = nn.Sequential(nn.Linear(num_players, 8), nn.ReLU(), nn.Linear(8, 1), nn.Sigmoid()).double()
    strength = torch.rand(num_players, dtype=torch.float64) * 3

    @torch.no_grad()
    def worth(masks_MA: Tensor) -> Tensor:
        found: Tensor = head(masks_MA * strength)[:, 0]
        return found

    return worth


def by_definition(worth: Worth, num_players: int) -> NDArray[np.float64]:
    """Σ over subsets S without i of |S|! (A − |S| − 1)! / A! · (v(S ∪ i) − v(S)) (Shapley 1953)."""
    values = np.zeros(num_players)
    for player in range(num_players):
        others = [other for other in range(num_players) if other != player]
        for size in range(num_players):
            weight = math.factorial(size) * math.factorial(num_players - size - 1) / math.factorial(num_players)
            for subset in itertools.combinations(others, size):
                mask = torch.zeros(2, num_players, dtype=torch.bool)
                mask[:, list(subset)] = True
                mask[1, player] = True
                without, with_it = worth(mask).tolist()
                values[player] += weight * (with_it - without)
    return values


def test_all_permutations_equal_the_definition() -> None:
    worth = small_risk(5)
    exact = by_definition(worth, 5)
    assert np.ptp(exact) > 0.01

    found = shapley_values(worth, 5, permutations=math.factorial(5))

    np.testing.assert_allclose(found.values, exact, atol=1e-12)


def test_the_estimate_comes_nearer_with_more_permutations() -> None:
    worth = small_risk(8)
    exact = by_definition(worth, 8)

    def error(permutations: int) -> float:
        found = [shapley_values(worth, 8, permutations=permutations, seed=seed).values for seed in range(8)]
        return float(np.sqrt(np.mean((np.array(found) - exact) ** 2)))

    few, some, many = error(2), error(20), error(200)
    assert few / some == pytest.approx(math.sqrt(10), rel=0.4)
    assert some / many == pytest.approx(math.sqrt(10), rel=0.4)
    assert many < 0.02 * np.abs(exact).max()


def test_a_pair_of_reverse_orders_errs_less_than_two_of_any() -> None:
    """Of a worth that has no terms of more than two players, a pair tells all."""
    strength = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()

    def worth(masks: Tensor) -> Tensor:
        return (masks * strength).sum(dim=1) ** 2

    exact = by_definition(worth, 4)
    np.testing.assert_allclose(shapley_values(worth, 4, permutations=2).values, exact, atol=1e-12)
    assert np.abs(shapley_values(worth, 4, permutations=1).values - exact).max() > 1


@pytest.mark.parametrize("permutations", [1, 7, 100])
@pytest.mark.parametrize("at_once", [1, 5, 256])
def test_values_sum_up_to_the_worth_of_all_less_that_of_none(permutations: int, at_once: int) -> None:
    worth = small_risk(9)

    found = shapley_values(worth, 9, permutations=permutations, at_once=at_once)

    assert found.values.sum() == pytest.approx(found.full - found.empty, abs=1e-14)
    assert [found.empty, found.full] == worth(torch.tensor([[False] * 9, [True] * 9])).tolist()


def test_batches_change_nothing_and_are_never_larger_than_asked_for() -> None:
    worth, sizes = small_risk(6), []

    def counted(masks: Tensor) -> Tensor:
        sizes.append(len(masks))
        return worth(masks)

    one, other = (shapley_values(counted, 6, permutations=30, seed=2, at_once=size).values for size in (4, 1000))

    np.testing.assert_allclose(one, other, atol=1e-15)
    assert set(sizes[: sizes.index(150)]) <= {1, 2, 4}
    assert sizes.count(150) == 1  # 30 orders of 5 coalitions between none and all


def test_inactive_players_get_0_and_are_never_asked_for() -> None:
    """A neuron that does not fire changes no worth: with and without the shortcut the values are the same."""
    active = torch.tensor([True, False, True, True, False])
    three, asked = small_risk(3), torch.zeros(5, dtype=torch.bool)

    def worth(masks: Tensor) -> Tensor:
        asked[masks.any(dim=0)] = True
        return three(masks[:, active])

    short = shapley_values(worth, 5, is_active=active, permutations=120)
    assert asked.tolist() == active.tolist()
    long = shapley_values(worth, 5, permutations=120)

    assert short.values[[1, 4]].tolist() == long.values[[1, 4]].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(short.values, long.values, atol=1e-12)
    np.testing.assert_allclose(short.values[active.numpy()], by_definition(three, 3), atol=1e-12)


def test_equal_seeds_draw_equal_permutations() -> None:
    worth = small_risk(12)
    first, again, other = (shapley_values(worth, 12, permutations=6, seed=seed).values for seed in (1, 1, 2))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_without_an_active_player_all_values_are_0() -> None:
    found = shapley_values(small_risk(3), 3, is_active=torch.zeros(3, dtype=torch.bool))

    assert found.values.tolist() == [0.0, 0.0, 0.0]
    assert found.full == found.empty


def test_one_player_gets_all() -> None:
    worth = small_risk(1)

    found = shapley_values(worth, 1)

    assert found.values.tolist() == [found.full - found.empty]
