"""Who trains when. Pure: settings in, turns out.

A **turn** is what happens between two checkpoints: one visit in alternating epochs, one visit of every site where all
train at once. Progress counts epochs of the run, so that every site follows one learning-rate curve.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mammofed_shared.config.schedule import PhaseSettings, ScheduleSettings

SitesOfRound = Callable[[int], tuple[str, ...]]
"""Round, from 1 → the run's members in it, in their fixed order."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One site's turn: weights in, local epochs, update out. Rounds and visits count from 1.

    ``epochs_total`` is the length of the run as it is known when the visit's round begins: rounds to come are taken to
    have the members of this one. So what a site is asked never depends on who joins or leaves later.
    """

    number: int
    round: int
    site: str
    epochs: int
    epochs_before: int
    epochs_total: int

    def task_id(self, run: str, kind: str = "train") -> str:
        """The visit's name on both sides; the same after any restart."""
        return f"{run}/r{self.round:04d}/v{self.number:05d}/{self.site}/{kind}"


@dataclass(frozen=True, slots=True)
class Turn:
    """Visits that start from the same state, and whose updates make the next one as ``phase`` says."""

    number: int
    round: int
    visits: tuple[Visit, ...]
    phase: PhaseSettings
    phase_number: int
    """Of the run's phases, from 1."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """All turns of a run, and its length in epochs."""

    turns: tuple[Turn, ...]
    epochs_total: int


def make_schedule(
    settings: ScheduleSettings,
    sites: tuple[str, ...],
    *,
    members: SitesOfRound | None = None,
    seed: int = 0,
    sizes: Mapping[str, float] | None = None,
) -> Schedule:
    """The turns of a run: equal arguments give equal turns, after any restart.

    Args:
        settings: phases, rounds, order, epochs of a visit.
        sites: all sites that the run began with, in its order.
        members: who is in the run in each round; None: ``sites`` in all of them. The turns up to a round depend on the
            members up to that round only. A round without a member that trains has no turn.
        seed: of the run, from which the order ``seeded`` is drawn.
        sizes: site → exams that it told of, for the order ``by-size``; while they are not known the order is as listed.
    """
    in_round: SitesOfRound = members or (lambda _: sites)
    turns: list[Turn] = []
    num_visits = epochs_before = 0
    for round_number, phase_number, left in _rounds(settings):
        here, phase = in_round(round_number), left[0][0]
        listed = _ordered(phase, phase.visits(sites, here), round_number, seed, sizes or {})
        total = epochs_before + sum(rounds * _length(item, sites, here) for item, rounds in left)
        for group in _groups(phase, listed):
            visits = tuple(
                Visit(num_visits + place, round_number, site, epochs, epochs_before, total)
                for place, (site, epochs) in enumerate(group, start=1)
            )
            num_visits += len(visits)
            epochs_before += visits[0].epochs
            turns.append(Turn(len(turns) + 1, round_number, visits, phase, phase_number))
    return Schedule(tuple(turns), epochs_before)


def _rounds(settings: ScheduleSettings) -> Iterator[tuple[int, int, list[tuple[PhaseSettings, int]]]]:
    """Of each round: its number, its phase's, and the phases that are left, each with its rounds that are left."""
    phases = [(phase, phase.rounds or 0) for phase in settings.each_phase]
    numbers = itertools.count(1)
    for index, (phase, rounds) in enumerate(phases):
        for left in range(rounds, 0, -1):
            yield next(numbers), index + 1, [(phase, left), *phases[index + 1 :]]


def _groups(phase: PhaseSettings, listed: list[tuple[str, int]]) -> list[list[tuple[str, int]]]:
    """The visits of each turn of a round."""
    if phase.kind == "alternating":
        return [[item] for item in listed]
    return [listed] if listed else []


def _length(phase: PhaseSettings, sites: tuple[str, ...], members: tuple[str, ...]) -> int:
    """Epochs by which a round of the phase advances the run; sites that train at once advance it once."""
    each = [epochs for _, epochs in phase.visits(sites, members)]
    return sum(each) if phase.kind == "alternating" else max(each, default=0)


def _ordered(
    phase: PhaseSettings,
    visits: tuple[tuple[str, int], ...],
    round_number: int,
    seed: int,
    sizes: Mapping[str, float],
) -> list[tuple[str, int]]:
    """The visits of a round in the order in which they are made."""
    if phase.order == "seeded":
        # By a hash of each site alone: who joins or leaves does not change the order of the others.
        return sorted(visits, key=lambda item: hashlib.sha256(f"{seed}/{round_number}/{item[0]}".encode()).digest())
    if phase.order == "by-size":
        return sorted(visits, key=lambda item: -sizes.get(item[0], 0.0))  # stable: equal sizes as listed
    return list(visits)
