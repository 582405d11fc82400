"""``site-client compare``: which of two runs' models tells this site's test exams apart better, and whether by chance.

It reads the scores that evaluations left here, so the two models are compared on the very same exams. Nothing leaves.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import ConfigurationError, DataError
from mammofed_shared.evaluation.paired import PERMUTATIONS, PairedTest, auroc_difference
from mammofed_shared.evaluation.statistics import auroc

Key = tuple[str, str, str]
"""Data set, exam and finding."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One finding (of a risk task: a year): AUROC of both models, and the test of their difference.

    ``num_exams`` are those that both have scored and whose label is known; ``test`` is None where one class is missing.
    """

    finding: str
    num_exams: int
    num_positive: int
    first: float | None
    second: float | None
    test: PairedTest | None


def compare_runs(settings: SiteSettings, first: str, second: str, console: Console) -> None:
    """Print the comparison of the last evaluations of two runs.

    Args:
        first, second: names of runs, or paths of `scores.csv` files.

    Raises:
        ConfigurationError: a run was not evaluated here.
        DataError: scores or tables cannot be read, or the runs have no finding of the same exams in common.
    """
    found = comparisons(settings, first, second)
    table = Table(title=f"{settings.site}: AUROC on the same exams; p of {PERMUTATIONS} permutations, two-sided")
    table.add_column("finding or year", no_wrap=True)
    for heading in ("exams", "positive", "first", "second", "difference", "p"):
        table.add_column(heading, justify="right")
    for item in found:
        counts = (str(item.num_exams), str(item.num_positive))
        if item.test is None:
            table.add_row(item.finding, *counts, *["–"] * 4)
        else:
            figures = (f"{item.first:.3f}", f"{item.second:.3f}", f"{item.test.difference:+.3f}")
            table.add_row(item.finding, *counts, *figures, f"{item.test.p_value:.3f}")
    console.print(f"first: {first}\nsecond: {second}", markup=False, soft_wrap=True)
    console.print(table)


def comparisons(settings: SiteSettings, first: str, second: str) -> list[Comparison]:
    """The findings that both runs have scored, in the order of the first run.

    Raises:
        ConfigurationError, DataError: as ``compare_runs``.
    """
    labels, ours = _scores(settings, first)
    theirs = _scores(settings, second)[1]
    patients = _patients(settings)
    common = [key for key in ours if key in theirs and key in labels]
    if not common:
        raise DataError(f"{first} and {second} have scored nothing in common here: are they of the same task?")
    found = []
    for finding in dict.fromkeys(finding for _, _, finding in common):
        keys = [key for key in common if key[2] == finding]
        found.append(_comparison(finding, keys, labels, ours, theirs, patients))
    return found


def _comparison(
    finding: str,
    keys: Sequence[Key],
    labels: dict[Key, bool],
    ours: dict[Key, float],
    theirs: dict[Key, float],
    patients: dict[tuple[str, str], str],
) -> Comparison:
    of_exam = [labels[key] for key in keys]
    first, second = [ours[key] for key in keys], [theirs[key] for key in keys]
    test = auroc_difference(of_exam, first, second, [patients[key[:2]] for key in keys])
    return Comparison(finding, len(keys), sum(of_exam), auroc(of_exam, first), auroc(of_exam, second), test)


def _scores(settings: SiteSettings, run: str) -> tuple[dict[Key, bool], dict[Key, float]]:
    """Labels that are known, and scores, of the last evaluation of a run, or of the file that is named instead."""
    path = _file_of(settings, run)
    labels, scores = {}, {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                key = (row["dataset"], row["exam"], row["finding"])
                scores[key] = float(row["score"])
                if row["label"]:
                    labels[key] = row["label"] == "1"
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: expected the scores of an evaluation") from error
    return labels, scores


def _file_of(settings: SiteSettings, run: str) -> Path:
    if run.endswith(".csv"):  # of a simulation, which keeps visits in a folder of its own
        return Path(run)
    folders = sorted((settings.folder / "visits").glob(f"{run}_r*_evaluate"))
    paths = [path for folder in folders if (path := folder / "result/scores.csv").is_file()]
    if not paths:
        raise ConfigurationError(f"no run called {run!r} was evaluated at {settings.site}")
    return paths[-1]


def _patients(settings: SiteSettings) -> dict[tuple[str, str], str]:
    """Data set and exam → patient."""
    found = {}
    for dataset in settings.datasets:
        path: Path = settings.prepared_folder(dataset) / "exams.parquet"
        for row in pq.read_table(path, columns=["exam", "patient"]).to_pylist():
            found[dataset.name, row["exam"]] = row["patient"]
    return found
