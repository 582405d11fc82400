"""``site-client preprocess``: from a PACS export to a prepared data set (docs/data.md), at the site, incremental.

    scan → number → (new or changed files) decode in worker processes → journal → tables → sweep

A kill at any moment loses at most the files that were being decoded; the next run ends in the same bytes. The tables
are written last, ``preprocessing.json`` after them: without it a data set counts as not prepared.
"""

import functools
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from mammofed_shared.config.site import DatasetSettings, SiteSettings
from mammofed_shared.data.prepared import PREPROCESSING_FILE, write_counts
from mammofed_shared.dicom.deidentify import Pseudonyms
from mammofed_shared.dicom.pool import Loss, Lost, map_isolated
from mammofed_shared.dicom.preprocess import Recipe, Refusal, prepare_file
from mammofed_shared.dicom.reasons import Reason
from mammofed_shared.errors import DataError
from mammofed_shared.exam import Split
from mammofed_shared.files import write_whole
from mammofed_shared.report.tables import read_attributes, read_labels, read_reports
from mammofed_site.intake_journal import Done, Journal, stamp_of
from mammofed_site.prepared_tables import (
    Texts,
    counts_by_reason,
    exam_rows,
    image_rows,
    refused_rows,
    tables,
    without_duplicates,
)

logger = logging.getLogger(__name__)

FILE_TIMEOUT_S = 120.0
"""A decoder that works on one file for longer hangs; a full-size JPEG 2000 image takes a second."""

_LOST = {
    Loss.DIED: Reason.DECODER_DIED,
    Loss.HUNG: Reason.DECODER_HUNG,
    Loss.RAISED: Reason.INTERNAL_ERROR,
}

ProgressReport = Callable[[int, int], None]
"""Called with files done and files to do; an unchanged file is neither."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a data set holds after a run, in counts only.

    ``refused`` and ``flagged`` map reason words (``dicom/reasons.py``) to files; ``splits`` maps parts to exams;
    ``num_decoded`` of the ``num_files`` were new or changed.
    """

    dataset: str
    num_files: int
    num_decoded: int
    num_images: int
    num_exams: int
    num_patients: int
    num_texts: int
    splits: dict[str, int]
    refused: dict[str, int]
    flagged: dict[str, int]
    duration_s: float


def preprocess(
    settings: SiteSettings, dataset: DatasetSettings, key: bytes, progress: ProgressReport = lambda done, total: None
) -> Summary:
    """Bring the prepared folder of one data set up to date with its export.

    Args:
        key: the site's pseudonym key (``pseudonym_key``).
        progress: told of every file that was decoded or refused.

    Raises:
        DataError: there is no export, or a CSV beside it cannot be read.
        StateError: another process is preparing this data set.
    """
    start = time.monotonic()
    if dataset.dicom is None or not dataset.dicom.is_dir():
        raise DataError(f"data set {dataset.name}: `dicom` must name the folder of its DICOM files")
    names = Pseudonyms(key)
    texts = _texts(dataset, names)
    prepared = settings.prepared_folder(dataset)
    recipe = Recipe(settings.preprocessing, dataset.profile, key, prepared)
    with Journal(recipe) as journal:
        files = {journal.name(path): dataset.dicom / path for path in sorted(_scan(dataset.dicom))}
        journal.number_all(files)
        todo = {name: path for name, path in files.items() if not _is_done(journal, name, path)}
        if journal.is_new_recipe:
            # The images change under the old tables from here on.
            (prepared / PREPROCESSING_FILE).unlink(missing_ok=True)
        _decode(recipe, journal, todo, settings.worker.preprocess_workers, progress)
        outcomes = {journal.numbers[name]: journal.done[name].outcome for name in files if name in journal.done}
        accepted, refused = without_duplicates(outcomes)
        exams = exam_rows(accepted.values(), texts, settings.split, names)
        for name, content in tables(image_rows(accepted), exams, refused_rows(refused)).items():
            write_whole(prepared / name, content)
        with_text = Counter(Split(row["split"]) for row in exams if row["text_origin"] is not None)
        write_counts(prepared, with_text)
        write_whole(prepared / PREPROCESSING_FILE, settings.preprocessing.model_dump_json(indent=2) + "\n")
        _sweep(prepared, {item.path for item in accepted.values()})
    return Summary(
        dataset=dataset.name,
        num_files=len(files),
        num_decoded=len(todo),
        num_images=len(accepted),
        num_exams=len(exams),
        num_patients=len({item.patient for item in accepted.values()}),
        num_texts=sum(row["text_origin"] is not None for row in exams),
        splits=dict(Counter(row["split"] for row in exams)),
        refused=counts_by_reason(refused.values()),
        flagged=dict(Counter(word for item in accepted.values() for word in item.flagged.split(";") if word)),
        duration_s=time.monotonic() - start,
    )


def preprocess_with_progress(
    settings: SiteSettings, dataset: DatasetSettings, key: bytes, console: Console | None = None
) -> Summary:
    """``preprocess`` under a bar with files/s and the time that is left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _FilesPerSecond(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"preprocess {dataset.name}", total=None)
        return preprocess(settings, dataset, key, lambda done, total: bar.update(task, completed=done, total=total))


class _FilesPerSecond(ProgressColumn):
    """Speed of the run so far."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("– files/s" if speed is None else f"{speed:.0f} files/s")


def _texts(dataset: DatasetSettings, names: Pseudonyms) -> Texts:
    return Texts(
        reports=read_reports(dataset.reports, names.of) if dataset.reports else {},
        attributes=read_attributes(dataset.attributes, names.of) if dataset.attributes else {},
        labels=read_labels(dataset.labels, names.of) if dataset.labels else {},
    )


def _scan(folder: Path) -> Iterator[str]:
    """All files below ``folder``, relative to it; CSV files and hidden ones are not meant as images."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and not name.lower().endswith(".csv"):
                yield str((Path(parent) / name).relative_to(folder))


def _is_done(journal: Journal, name: str, path: Path) -> bool:
    """Whether the file is as it was when its result was recorded, and the result's image is still there, whole."""
    done = journal.done.get(name)
    if done is None or done.stamp != stamp_of(path):
        return False
    if isinstance(done.outcome, Refusal):
        # A lost worker may have been the machine's fault: such a file gets another chance in every run.
        return done.outcome.reason not in _LOST.values()
    image = journal.prepared / done.outcome.path
    return image.is_file() and image.stat().st_size == done.outcome.png_bytes


def _decode(recipe: Recipe, journal: Journal, todo: dict[str, Path], workers: int, progress: ProgressReport) -> None:
    """Prepare the files and record each result as it comes.

    A damaged code stream may spoil a decoder's memory and kill it over the next file, so a file whose worker died is
    tried a second time, after all others: only the culprit dies again.
    """
    name_of = {path: name for name, path in todo.items()}
    stamps = {path: stamp_of(path) for path in name_of}
    prepare = functools.partial(prepare_file, recipe)
    left, num_done = list(name_of), 0
    progress(0, len(todo))
    for is_last in (False, True):
        died = []
        for path, result in map_isolated(prepare, left, workers=workers, timeout_s=FILE_TIMEOUT_S):
            if isinstance(result, Lost):
                if result.loss is Loss.DIED and not is_last:
                    died.append(path)
                    continue
                result = Refusal(_LOST[result.loss], result.detail)
                logger.warning("file %d: %s: %s", journal.numbers[name_of[path]], result.reason, result.detail)
            journal.record(name_of[path], Done(stamps[path], result))
            num_done += 1
            progress(num_done, len(todo))
        left = died


def _sweep(prepared: Path, kept: set[str]) -> None:
    """Remove images that no row names: of vanished and changed files, and of runs that were killed."""
    for path in sorted((prepared / "images").rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(prepared).as_posix() not in kept:
            path.unlink()
