"""``site-client teach``: the risks that MIRAI gives the exams of this site, for students to learn from.

MIRAI sees the DICOM files in its own preparation (``dicom/mirai_image.py``), not the prepared images. Which files make
an exam is known from the prepared tables. Workers decode; the model runs in this process. A file that cannot be read
costs its exam. Nothing leaves: the scores are a CSV of this site, by pseudonym, that `preprocess` reads.

This file is light: torch is loaded, by name, with the first exam.
"""

import hashlib
import importlib
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mammofed_shared.config.mirai_teacher import MiraiDescription, is_calibrated, read_description
from mammofed_shared.config.site import DatasetSettings, SiteSettings
from mammofed_shared.data.prepared import read_preprocessing
from mammofed_shared.dicom.mirai_image import ExamFiles, Grey, RefusedFile, mirai_images
from mammofed_shared.dicom.pool import Lost, map_isolated
from mammofed_shared.errors import DataError
from mammofed_shared.exam import Laterality, View
from mammofed_shared.files import write_whole
from mammofed_shared.pseudonyms import Pseudonyms
from mammofed_shared.report.exam_facts import Teacher
from mammofed_site.export import locate
from mammofed_site.preprocess import dicom_folder
from mammofed_site.teacher_scores import TeacherScores

logger = logging.getLogger(__name__)

HEAVY_MODULE = "mammofed_site.mirai_scorer"
"""Loaded by name, so that the imports of `site-client` stay free of torch."""
VIEWS = tuple((side, view) for side in (Laterality.R, Laterality.L) for view in (View.CC, View.MLO))
"""MIRAI gives an exam a risk only if it has all four."""

Score = Callable[[Sequence[Grey]], Teacher]
"""The pictures of ``VIEWS`` → risk of 1 to 5 years."""

_EXAM_TIMEOUT_S = 480.0
"""A decoder that works on an exam for longer hangs."""
_MOST_NAMED = 20
"""Files that are named one by one; of more, only the number is told."""


@dataclass(frozen=True, slots=True)
class FourViews:
    """One exam: the local numbers of its files in the order of ``VIEWS``, and the digest of its prepared images."""

    exam: str
    numbers: tuple[int, ...]
    images: str


@dataclass(slots=True)
class Outcome:
    """What became of the exams of one data set; ``unread`` maps the local number of a file to what is wrong with it."""

    num_exams: int = 0
    num_without_four_views: int = 0
    num_before: int = 0
    num_now: int = 0
    unread: dict[int, str] = field(default_factory=dict)


def teach(settings: SiteSettings, key: bytes, weights: Path, console: Console) -> None:
    """Score the exams of every data set and write ``<folder>/teacher/<dataset>.csv``; a second call does what is new.

    Args:
        key: the site's pseudonym key.
        weights: as ``deploy/mirai/convert_snapshot.py`` writes them.

    Raises:
        ConfigurationError: the weights are no MIRAI, or the device is not there.
        DataError: a data set is not prepared, has no export, or its scores cannot be kept.
        StateError: another process is scoring a data set.
    """
    description = read_description(weights)
    datasets = [dataset for dataset in settings.datasets if dataset.dicom is not None]
    if not datasets:
        raise DataError("no data set names its DICOM files in `dicom`, and MIRAI sees nothing else")
    for dataset in datasets:
        dicom_folder(dataset)
        read_preprocessing(settings.prepared_folder(dataset))
    if not is_calibrated(weights):
        console.print("the weights hold no calibration: the risks are those of the bare model")
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    score = _lazily(settings, weights, description)
    for dataset in datasets:
        path = settings.folder / "teacher" / f"{dataset.name}.csv"
        outcome = teach_dataset(settings, dataset, key, description, digest, score, path, console)
        for line in _told(dataset, outcome, path):
            console.print(line, soft_wrap=True)


def teach_dataset(
    settings: SiteSettings,
    dataset: DatasetSettings,
    key: bytes,
    description: MiraiDescription,
    digest: str,
    score: Score,
    path: Path,
    console: Console,
) -> Outcome:
    """Score what was not scored before under a bar, and write the CSV of all scores at ``path``.

    Args:
        digest: of the weights.
    """
    prepared = settings.prepared_folder(dataset)
    exams, num_other = four_view_exams(prepared)
    outcome = Outcome(len(exams) + num_other, num_other)
    with TeacherScores(path.with_suffix(".sqlite"), digest) as scores:
        known = scores.of({exam.exam: exam.images for exam in exams})
        outcome.num_before = len(known)
        todo = [exam for exam in exams if exam.exam not in known]
        with _bar(console) as bar:
            task = bar.add_task(f"teach {dataset.name}", total=len(exams), completed=len(known))
            for exam, images in _decoded(settings, dataset, key, description, todo, outcome):
                risks = score(images)
                if all(math.isfinite(risk) for risk in risks):
                    scores.add(exam.exam, exam.images, risks)
                    known[exam.exam] = risks
                    outcome.num_now += 1
                else:
                    outcome.unread[exam.numbers[0]] = "the model gives its exam no number"
                bar.update(task, completed=len(known) + len(outcome.unread))
            bar.update(task, completed=len(known) + len(outcome.unread))  # the last ones may have been unreadable
    if known:
        _write_csv(path, known)
    logger.info(
        "data set %s: %d exams, %d without four views, %d scored before, %d now, %d files unread",
        dataset.name, outcome.num_exams, num_other, outcome.num_before, outcome.num_now, len(outcome.unread),
    )  # fmt: skip
    return outcome


def four_view_exams(prepared: Path) -> tuple[list[FourViews], int]:
    """The exams of a prepared data set that have all four views, and the number of those that have not.

    Of several images of one view the first by its pseudonym counts, as everywhere.
    """
    columns = ["image", "exam", "laterality", "view", "file_number", "png_sha256"]
    views: dict[str, dict[tuple[str, str], tuple[str, int, str]]] = defaultdict(dict)
    with pq.ParquetFile(prepared / "images.parquet") as table:
        for batch in table.iter_batches(columns=columns):
            for row in batch.to_pylist():
                of_exam, view = views[row["exam"]], (row["laterality"], row["view"])
                image = (row["image"], row["file_number"], row["png_sha256"])
                of_exam[view] = min(of_exam.get(view, image), image)
    wanted = [(side.value, view.value) for side, view in VIEWS]
    found = []
    for exam, of_exam in sorted(views.items()):
        if all(view in of_exam for view in wanted):
            images = [of_exam[view] for view in wanted]
            digest = hashlib.sha256("".join(sha256 for _, _, sha256 in images).encode()).hexdigest()
            found.append(FourViews(exam, tuple(number for _, number, _ in images), digest))
    return found, len(views) - len(found)


def _decoded(
    settings: SiteSettings,
    dataset: DatasetSettings,
    key: bytes,
    description: MiraiDescription,
    exams: Sequence[FourViews],
    outcome: Outcome,
) -> Iterator[tuple[FourViews, tuple[Grey, ...]]]:
    """Each exam with its pictures, as workers give them; what cannot be read goes into ``outcome``."""
    folder, size = dicom_folder(dataset), (description.image_height, description.image_width)
    numbers = [number for exam in exams for number in exam.numbers]
    paths = locate(folder, settings.prepared_folder(dataset), numbers, Pseudonyms(key))
    there = []
    for exam in exams:
        gone = [number for number in exam.numbers if number not in paths]
        outcome.unread.update(dict.fromkeys(gone[:1], "no longer in the export"))
        if not gone:
            there.append(exam)
    for exam, answer in map_isolated(
        mirai_images,
        there,
        workers=settings.worker.preprocess_workers,
        timeout_s=_EXAM_TIMEOUT_S,
        argument=lambda exam: ExamFiles(tuple(paths[number] for number in exam.numbers), size),
    ):
        if isinstance(answer, RefusedFile):
            outcome.unread[exam.numbers[answer.index]] = answer.refusal.reason
        elif isinstance(answer, Lost):
            outcome.unread[exam.numbers[0]] = f"its exam was lost: {answer.detail}"
        else:
            yield exam, answer


def _write_csv(path: Path, scores: Mapping[str, Teacher]) -> None:
    lines = ["exam,year1,year2,year3,year4,year5"]
    lines += [",".join((exam, *(f"{risk:.8f}" for risk in risks))) for exam, risks in sorted(scores.items())]
    write_whole(path, "\n".join(lines) + "\n")


def _told(dataset: DatasetSettings, outcome: Outcome, path: Path) -> list[str]:
    lines = [
        f"{dataset.name}: {outcome.num_exams} exams; {outcome.num_now} scored now, {outcome.num_before} before, "
        f"{outcome.num_without_four_views} have not all four views, {len(outcome.unread)} cannot be read"
    ]
    named = sorted(outcome.unread.items())[:_MOST_NAMED]
    lines += [f"  file {number:,}: {why}; its exam has no score" for number, why in named]
    if len(outcome.unread) > len(named):
        words = Counter(outcome.unread.values())
        lines.append(f"  and {len(outcome.unread) - len(named)} more: {', '.join(sorted(words))}")
    if outcome.unread:
        lines.append("  `site-client preprocess --locate N` tells which file has number N; run `teach` again to retry")
    if outcome.num_now or outcome.num_before:
        named_it = dataset.teacher is not None and dataset.teacher.resolve() == path.resolve()
        first = "" if named_it else f"write `teacher: {path}` into this data set of the site's YAML, and "
        lines.append(f"  {first}run `site-client preprocess` to take the scores into its exams")
    return lines


def _lazily(settings: SiteSettings, weights: Path, description: MiraiDescription) -> Score:
    """Loads torch and the model with the first exam: a run that has none to score only writes the CSV."""

    @cache
    def scorer() -> Score:
        loaded: Score = importlib.import_module(HEAVY_MODULE).MiraiScorer(
            weights, description, VIEWS, device=settings.worker.device, threads=settings.worker.threads
        )
        return loaded

    return lambda images: scorer()(images)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("exams"),
        TimeRemainingColumn(),
        console=console,
    )
