"""Shapley values: what each neuron adds to a risk, in the mean over all orders in which neurons could be switched on.

Source: Mammo-FM, Quantifying Neuron Contribution to risk via Shapley Values: the mean marginal change over 100 random
permutations. Here permutations come in pairs, each with its reverse, whose errors partly cancel (antithetic sampling:
Mitchell et al. 2022, *Sampling Permutations for Shapley Value Estimation*, section 3); and where all orders are no more
than were asked for, all are taken, which is exact.

Shapes: A players, P permutations, M coalitions.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Worth: TypeAlias = Callable[[Tensor], Tensor]
"""Coalitions (M, A) bool, True for who is in → what each is worth, (M,)."""


@dataclass(frozen=True, slots=True)
class ShapleyValues:
    """What each player adds, (A,) float64; they sum up to ``full`` − ``empty``, the worth of all and of none."""

    values: NDArray[np.float64]
    full: float
    empty: float


def shapley_values(
    worth: Worth,
    num_players: int,
    *,
    is_active: Tensor | None = None,
    permutations: int = 100,
    seed: int = 0,
    at_once: int = 256,
) -> ShapleyValues:
    """Estimate every player's Shapley value; equal arguments give equal values.

    Args:
        worth: asked for many coalitions at once.
        is_active: (A,) bool; who is not can change no worth (a neuron of a code that does not fire), so gets 0 without
            being asked for. This is exact: such a player adds 0 in every order. None: all are.
        permutations: orders to take; at least 1. An even number, so that each has its reverse.
        at_once: coalitions that ``worth`` is asked for together, at most.
    """
    places = np.arange(num_players) if is_active is None else np.flatnonzero(is_active.cpu().numpy())
    empty, full = _worths(worth, np.array([[False], [True]]).repeat(len(places), axis=1), places, num_players, at_once)
    values = np.zeros(num_players)
    if len(places):
        orders_PA = _orders(len(places), permutations, seed)
        values[places] = _means(worth, orders_PA, places, num_players, at_once, empty, full)
    return ShapleyValues(values, float(full), float(empty))


def _orders(num_players: int, permutations: int, seed: int) -> NDArray[np.int64]:
    """Orders (P, A), all or so many."""
    if math.factorial(num_players) <= permutations:
        return np.array(list(itertools.permutations(range(num_players))), np.int64)
    random = np.random.default_rng(seed)
    drawn = [random.permutation(num_players) for _ in range(-(-permutations // 2))]
    return np.array([order for one in drawn for order in (one, one[::-1])][:permutations], np.int64)


def _means(
    worth: Worth,
    orders_PA: NDArray[np.int64],
    places: NDArray[np.int64],
    num_players: int,
    at_once: int,
    empty: float,
    full: float,
) -> NDArray[np.float64]:
    """Mean marginal change of each player, (A,)."""
    count = orders_PA.shape[1]
    rank_PA = np.argsort(orders_PA, axis=1)
    total_A = np.zeros(count)
    # As many orders at a time as fill one call: their first coalition is empty and their last is everyone.
    step = max(at_once // max(count - 1, 1), 1)
    for start in range(0, len(orders_PA), step):
        ranks = rank_PA[start : start + step]
        masks = ranks[:, None] < np.arange(1, count)[None, :, None]
        inner = _worths(worth, masks.reshape(-1, count), places, num_players, at_once).reshape(len(ranks), -1)
        edge = np.ones((len(ranks), 1))
        added = np.diff(np.concatenate([edge * empty, inner, edge * full], axis=1), axis=1)
        total_A += np.take_along_axis(added, ranks, axis=1).sum(axis=0)
    mean_A: NDArray[np.float64] = total_A / len(orders_PA)
    return mean_A


def _worths(
    worth: Worth, masks_MA: NDArray[np.bool_], places: NDArray[np.int64], num_players: int, at_once: int
) -> NDArray[np.float64]:
    """What coalitions of the active players are worth, (M,)."""
    found = [np.zeros(0)]
    for start in range(0, len(masks_MA), at_once):
        part = masks_MA[start : start + at_once]
        everyone = np.zeros((len(part), num_players), np.bool_)
        everyone[:, places] = part
        found.append(worth(torch.from_numpy(everyone)).detach().double().cpu().numpy())
    return np.concatenate(found)
