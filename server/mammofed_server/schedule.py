"""Who trains when. Pure: settings in, turns out.

A **turn** is what happens between two checkpoints: one visit in the alternating schedule, one visit of every site
in FedAvg. Progress counts epochs of the run, so that every site follows one learning-rate curve.
"""

from dataclasses import dataclass

from mammofed_shared.config.run import ScheduleSettings


@dataclass(frozen=True, slots=True)
class Visit:
    """One site's turn: weights in, local epochs, update out. Rounds and visits count from 1."""

    number: int
    round: int
    site: str
    epochs: int
    epochs_before: int

    def task_id(self, run: str, kind: str = "train") -> str:
        """The visit's name on both sides; the same after any restart."""
        return f"{run}/r{self.round:04d}/v{self.number:05d}/{self.site}/{kind}"


@dataclass(frozen=True, slots=True)
class Turn:
    """Visits that start from the same state, and whose updates make the next one."""

    number: int
    round: int
    visits: tuple[Visit, ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """All turns of a run, and its length in epochs."""

    turns: tuple[Turn, ...]
    epochs_total: int


def make_schedule(settings: ScheduleSettings, sites: tuple[str, ...]) -> Schedule:
    """The turns of a run.

    Args:
        settings: kind, rounds, epochs of a visit.
        sites: sites that train, in order.
    """
    epochs = settings.epochs
    each = epochs if isinstance(epochs, tuple) else (epochs,) * len(sites)
    if settings.kind == "alternating":
        return _alternating(settings.rounds, list(zip(sites, each, strict=True)))
    return _together(settings.rounds, sites, each[0])


def _alternating(rounds: int, visits: list[tuple[str, int]]) -> Schedule:
    turns: list[Turn] = []
    epochs_before = 0
    for round_number in range(1, rounds + 1):
        for site, epochs in visits:
            number = len(turns) + 1
            turns.append(Turn(number, round_number, (Visit(number, round_number, site, epochs, epochs_before),)))
            epochs_before += epochs
    return Schedule(tuple(turns), epochs_before)


def _together(rounds: int, sites: tuple[str, ...], epochs: int) -> Schedule:
    turns: list[Turn] = []
    for round_number in range(1, rounds + 1):
        first = (round_number - 1) * len(sites) + 1
        visits = tuple(
            Visit(first + index, round_number, site, epochs, (round_number - 1) * epochs)
            for index, site in enumerate(sites)
        )
        turns.append(Turn(round_number, round_number, visits))
    return Schedule(tuple(turns), rounds * epochs)
