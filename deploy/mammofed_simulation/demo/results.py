"""The numbers of a demo as records; `results.json` holds them all."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from mammofed_shared.config.base import Digest, Settings

FINDINGS = ("mass", "calcification")
ALL = "all"
"""Beside the hospitals' names: the held-out exams of all of them taken together."""

Aurocs: TypeAlias = Mapping[str, Mapping[str, float | None]]
"""Finding → hospital or ``ALL`` → AUROC at exam level; None where only one class exists."""


class Point(Settings):
    """The joint model after a turn."""

    turn: int
    round: int
    trained: tuple[str, ...]
    """Sites that trained in this turn; none in turn 0."""
    loss: float | None
    auroc: Aurocs
    density_accuracy: Mapping[str, float] = {}


class SeededRun(Settings):
    """One run of one row of the comparison."""

    seed: int | None
    """None where nothing is random."""
    num_steps: int
    auroc: Aurocs


class Entry(Settings):
    """A row of the comparison: one way to come to a model, with all its runs."""

    kind: str
    label: str
    how: str
    runs: tuple[SeededRun, ...]

    def spread(self, finding: str, place: str) -> tuple[float, float, float] | None:
        """Mean, lowest and highest AUROC over the runs; None where a run has none."""
        return spread([run.auroc[finding].get(place) for run in self.runs])


class Population(Settings):
    """What a hospital's prepared data set holds."""

    site: str
    dataset: str
    is_phantom: bool
    vendors: tuple[str, ...]
    texts: str
    num_images: int
    num_refused: int
    num_train: int
    """Exams to train on: those with a text."""
    num_test: int
    """Held-out exams: those whose findings are known."""
    prevalence: Mapping[str, float]
    """Finding → share of the exams whose label is known; empty where none is."""
    density: Mapping[str, int]


class Departure(Settings):
    """What left one hospital, after its own audit record."""

    site: str
    num_visits: int
    num_evaluations: int
    num_bytes: int
    numbers: tuple[str, ...]
    """Names of all numbers that were released."""
    refused: int


class Interruption(Settings):
    """Where the killed client was."""

    site: str
    round: int
    visit: int
    step: int
    num_steps: int


class Check(Settings):
    """One condition of the bar."""

    what: str
    wanted: float
    found: float | None

    @property
    def is_met(self) -> bool:
        """Whether the figure is there and high enough."""
        return self.found is not None and self.found >= self.wanted


class Results(Settings):
    """Everything that the demo's page and table show."""

    seed: int
    date: str
    code: str
    model_sha256: Digest
    num_values: int
    text_encoder: Digest
    minutes: Mapping[str, float]
    sites: tuple[str, ...]
    points: tuple[Point, ...]
    entries: tuple[Entry, ...]
    checks: tuple[Check, ...]
    populations: tuple[Population, ...]
    departures: tuple[Departure, ...]
    interruption: Interruption | None
    mlflow: str

    @property
    def is_bar_met(self) -> bool:
        """Whether every condition is."""
        return all(check.is_met for check in self.checks)

    def entry(self, kind: str) -> Entry:
        """The row of this kind."""
        return next(entry for entry in self.entries if entry.kind == kind)


def spread(values: Iterable[float | None]) -> tuple[float, float, float] | None:
    """Mean, lowest and highest; None where there is no value or one is missing."""
    known: list[float] = []
    for value in values:
        if value is None:
            return None
        known.append(value)
    return (sum(known) / len(known), min(known), max(known)) if known else None


def spread_text(found: tuple[float, float, float] | None) -> str:
    """``0.981`` of one run, ``0.981 (0.975–0.987)`` of several, ``–`` of none."""
    if found is None:
        return "–"
    mean, low, high = (f"{value:.3f}" for value in found)
    return mean if low == high else f"{mean} ({low}–{high})"


def range_text(found: tuple[float, float, float] | None) -> str:
    """``0.98`` of one run, ``0.97–0.99`` of several, ``–`` of none; short, for a terminal."""
    if found is None:
        return "–"
    _, low, high = (f"{value:.2f}" for value in found)
    return low if low == high else f"{low}–{high}"


def check_bar(points: Sequence[Point], fedavg: Entry, sites: Sequence[str]) -> tuple[Check, ...]:
    """The bar that the joint model must clear; the figures of phantoms, and of the demo's settings only."""
    last, first = points[-1].auroc["mass"], points[0].auroc["mass"]
    checks = [Check(what="joint model, mass AUROC, all hospitals", wanted=0.90, found=last.get(ALL))]
    checks += [Check(what=f"joint model, mass AUROC at {site}", wanted=0.85, found=last.get(site)) for site in sites]
    before, after = first.get(ALL), last.get(ALL)
    gain = None if before is None or after is None else after - before
    checks.append(Check(what="joint model, mass AUROC above the untrained model", wanted=0.25, found=gain))
    lowest = fedavg.spread("mass", ALL)
    checks.append(Check(what="FedAvg, mass AUROC, all hospitals", wanted=0.90, found=lowest[1] if lowest else None))
    return tuple(checks)
