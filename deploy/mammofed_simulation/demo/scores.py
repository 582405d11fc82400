"""AUROCs from what a run leaves behind: released numbers of each hospital, and scores that stay at each hospital.

The pooled AUROC needs the score of every exam. Those stay at the hospitals; the demo may read them because it owns all
three. The coordinator of a real run cannot: it knows the hospitals' own AUROCs, and bounds of the pooled one
(`mammofed_server/pooled.py`).
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mammofed_server.run_state import RunState
from mammofed_shared.errors import DataError
from mammofed_shared.evaluation.statistics import auroc
from mammofed_simulation.demo.results import ALL, FINDINGS, Aurocs, Point, SeededRun


@dataclass(frozen=True, slots=True)
class Scored:
    """One exam's score for one finding whose presence is known."""

    finding: str
    label: bool
    score: float


def read_scores(path: Path) -> list[Scored]:
    """The rows of a site's `scores.csv` whose label is known.

    Raises:
        DataError: it is not there, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                Scored(row["finding"], row["label"] == "1", float(row["score"]))
                for row in csv.DictReader(file)
                if row["label"] != ""
            ]
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: expected the scores of an evaluation: {error!r}") from error


def aurocs(by_site: Mapping[str, Iterable[Scored]]) -> Aurocs:
    """AUROC of each finding at each hospital, and over the exams of all hospitals together."""
    labels: dict[tuple[str, str], list[bool]] = defaultdict(list)
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for site, scores in by_site.items():
        for item in scores:
            for place in (site, ALL):
                labels[item.finding, place].append(item.label)
                values[item.finding, place].append(item.score)
    places = [*by_site, ALL]
    return {
        finding: {place: auroc(labels[finding, place], values[finding, place]) for place in places}
        for finding in FINDINGS
    }


def aurocs_of_turn(run: RunState, turn: int, sites_folder: Path, sites: Sequence[str]) -> Aurocs:
    """AUROCs of the state after a turn: the hospitals' as they released them, all together from the scores.

    Args:
        sites_folder: holds one folder a site, as `site-client` keeps it.

    Raises:
        DataError: the turn was not evaluated at every site.
    """
    record = run.evaluation(turn)
    missing = [site for site in sites if record is None or site not in record.metrics]
    if record is None or missing:
        raise DataError(f"{run.folder}: turn {turn} was not evaluated at {', '.join(missing)}; see the logs")
    name = run.record.settings.run
    by_site = {
        site: read_scores(
            sites_folder
            / site
            / "visits"
            / f"{name}_r{record.round:04d}_v{turn:05d}_{site}_evaluate"
            / "result"
            / "scores.csv"
        )
        for site in sites
    }
    found = aurocs(by_site)
    released = {finding: {site: record.metrics[site].get(f"auroc/{finding}") for site in sites} for finding in FINDINGS}
    return {finding: {**released[finding], ALL: found[finding][ALL]} for finding in FINDINGS}


def curve(run: RunState, sites_folder: Path, sites: Sequence[str]) -> tuple[Point, ...]:
    """The joint model before training and after each turn."""
    points = []
    for turn in range(run.last_turn() + 1):
        manifest, record = run.manifest(turn), run.evaluation(turn)
        losses = [item.metrics["loss"] for item in manifest.contributions]
        metrics = record.metrics if record else {}
        points.append(
            Point(
                turn=turn,
                round=manifest.round,
                trained=tuple(item.site for item in manifest.contributions),
                loss=sum(losses) / len(losses) if losses else None,
                auroc=aurocs_of_turn(run, turn, sites_folder, sites),
                density_accuracy={
                    site: values["density_accuracy"] for site, values in metrics.items() if "density_accuracy" in values
                },
            )
        )
    return tuple(points)


def last_of(folder: Path, sites: Sequence[str], sites_folder: Path) -> SeededRun:
    """The last state of a run whose coordinator's folder is ``folder``."""
    run = RunState.open(folder)
    return SeededRun(
        seed=run.record.settings.seed,
        num_steps=num_steps(run),
        auroc=aurocs_of_turn(run, run.last_turn(), sites_folder, sites),
    )


def num_steps(run: RunState) -> int:
    """Optimizer steps of all visits that added to a run."""
    return sum(
        round(item.metrics["num_steps"])
        for turn in range(1, run.last_turn() + 1)
        for item in run.manifest(turn).contributions
    )
