"""AUROC of each year at each hospital, of the teacher and of every head: from scores that stay at the hospitals.

The demo may read them because it owns all three. The coordinator of a real run has each hospital's own figures, and
bounds of the pooled ones: `fl-server report`.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mammofed_server.run_state import RunState
from mammofed_shared.config.risk_metrics import YEARS
from mammofed_shared.data.risk import censored_labels
from mammofed_shared.errors import DataError
from mammofed_shared.evaluation.statistics import auroc
from mammofed_shared.exam import Exam, Split
from mammofed_simulation.demo_risk.results import Figure, ModelRow

ALL = "all"
"""Beside the hospitals' names: the held-out exams of all of them taken together."""


@dataclass(frozen=True, slots=True)
class Score:
    """One exam's risk of one year whose outcome is known."""

    year: str
    has_cancer: bool
    risk: float


def row_of(model: str, by_site: Mapping[str, Iterable[Score]]) -> ModelRow:
    """The figures of one model, from its scores at each hospital."""
    scores: dict[tuple[str, str], list[Score]] = {}
    for site, found in by_site.items():
        for score in found:
            for place in (site, ALL):
                scores.setdefault((place, score.year), []).append(score)
    return ModelRow(model=model, figures=tuple(_figure(*key, own) for key, own in scores.items()))


def _figure(place: str, year: str, scores: list[Score]) -> Figure:
    labels = [score.has_cancer for score in scores]
    found = auroc(labels, [score.risk for score in scores])
    return Figure(place=place, year=year, auroc=found, num_exams=len(scores), num_cancers=sum(labels))


def teacher_scores(exams: Iterable[Exam]) -> list[Score]:
    """The teacher's risks of the held-out exams."""
    scores = []
    for exam in exams:
        if exam.split is not Split.TEST or exam.teacher is None:
            continue
        has_cancer, known = censored_labels(exam)
        scores += [
            Score(year, bool(has_cancer[index]), exam.teacher[index])
            for index, year in enumerate(YEARS)
            if known[index]
        ]
    return scores


def last_scores(result: Path, site: str) -> list[Score]:
    """The risks that a site found with the last state of a run; ``result`` is the simulation's folder.

    Raises:
        DataError: the run was not evaluated there.
    """
    run = RunState.open(result / "server")
    folders = sorted((result / "sites" / site / "visits").glob(f"{run.record.settings.run}_r*_evaluate"))
    try:
        with (folders[-1] / "result/scores.csv").open(encoding="utf-8", newline="") as file:
            return [
                Score(row["finding"], row["label"] == "1", float(row["score"]))
                for row in csv.DictReader(file)
                if row["label"] != ""
            ]
    except (IndexError, OSError, KeyError, ValueError) as error:
        raise DataError(f"{result}: expected the scores of an evaluation at {site}: {error!r}") from error
