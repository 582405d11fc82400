"""``site-client preprocess``: from a PACS export to a prepared data set (docs/data.md), at the site, incremental.

    index (number every file) → decode what is new, in worker processes → journal → decide by exam → tables → sweep

A kill at any moment loses at most the files that were being decoded; the next run ends in the same bytes. The tables
are written last, ``preprocessing.json`` after them: without it a data set counts as not prepared. Memory does not grow
with the number of files.
"""

import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from mammofed_shared.config.site import DatasetSettings, SiteSettings
from mammofed_shared.data.prepared import PREPROCESSING_FILE, write_counts
from mammofed_shared.dicom.pool import Loss, Lost, map_isolated
from mammofed_shared.dicom.preprocess import Recipe, Refusal, prepare_file
from mammofed_shared.dicom.profiles import load_profile
from mammofed_shared.dicom.reasons import Reason
from mammofed_shared.errors import DataError
from mammofed_shared.files import write_whole
from mammofed_shared.pseudonyms import Pseudonyms
from mammofed_site.exam_facts import read_facts
from mammofed_site.export import files_below
from mammofed_site.intake_journal import Journal, Stamp, stamp_of
from mammofed_site.intake_summary import Summary
from mammofed_site.prepared_rows import DecidedExam, decided_exams, image_row, refused_row
from mammofed_site.prepared_tables import PreparedTables

logger = logging.getLogger(__name__)

FILE_TIMEOUT_S = 120.0
"""A decoder that works on one file for longer hangs; a full-size JPEG 2000 image takes a second."""

_LOST = {
    Loss.DIED: Reason.DECODER_DIED,
    Loss.HUNG: Reason.DECODER_HUNG,
    Loss.RAISED: Reason.INTERNAL_ERROR,
}

ProgressReport = Callable[[int, int | None], None]
"""Called with files done and files to do (None while they are counted); an unchanged file is neither."""

_Task = tuple[int, Path, Stamp]
"""Number, path and stamp of a file to decode."""


def preprocess(
    settings: SiteSettings,
    dataset: DatasetSettings,
    key: bytes,
    progress: ProgressReport = lambda done, total: None,
    *,
    is_dry: bool = False,
) -> Summary:
    """Bring the prepared folder of one data set up to date with its export.

    Args:
        key: the site's pseudonym key (``pseudonym_key``).
        progress: told of every file that was decoded or refused.
        is_dry: do all of it and write nothing, neither an image nor a table nor a journal.

    Raises:
        DataError: there is no export, or a CSV beside it cannot be read.
        StateError: another process is preparing this data set.
    """
    start = time.monotonic()
    folder = dicom_folder(dataset)
    names = Pseudonyms(key)
    facts = read_facts(dataset, names)
    prepared = settings.prepared_folder(dataset)
    recipe = Recipe(settings.preprocessing, load_profile(dataset.profile), key, prepared, is_dry)
    summary = Summary(dataset.name, is_dry, tables=facts.counts)
    with Journal(recipe) as journal:
        journal.note((journal.name(path), stamp_of(folder / path)) for path in files_below(folder))
        summary.num_files = journal.num_files()
        if journal.is_new_recipe and not is_dry:
            # The images change under the old tables from here on.
            (prepared / PREPROCESSING_FILE).unlink(missing_ok=True)

        def decode() -> int:
            return _decode(recipe, journal, folder, settings.worker.preprocess_workers, progress)

        def exams() -> Iterator[DecidedExam]:
            return decided_exams(journal.accepted(), facts, dataset, settings.split, names)

        summary.num_decoded = decode()
        if not is_dry and _forget_lost_images(journal, exams(), prepared):
            summary.num_decoded += decode()
        if is_dry:
            _count_and_write(journal, exams(), summary, None)
        else:
            with PreparedTables(prepared) as tables:
                _count_and_write(journal, exams(), summary, tables)
                tables.commit()
            write_counts(prepared, summary.texts_by_split)
            write_whole(prepared / PREPROCESSING_FILE, settings.preprocessing.model_dump_json(indent=2) + "\n")
            _sweep(journal, prepared)
    summary.duration_s = time.monotonic() - start
    logger.info(
        "data set %s: %d files, %d decoded, %d images of %d exams of %d patients, %d files refused, in %.0f s%s",
        dataset.name,
        summary.num_files,
        summary.num_decoded,
        summary.num_images,
        summary.num_exams,
        summary.num_patients,
        summary.refused.total(),
        summary.duration_s,
        " (dry run)" if is_dry else "",
    )
    return summary


def dicom_folder(dataset: DatasetSettings) -> Path:
    """The folder of a data set's DICOM files.

    Raises:
        DataError: there is none.
    """
    if dataset.dicom is None or not dataset.dicom.is_dir():
        raise DataError(f"data set {dataset.name}: `dicom` must name the folder of its DICOM files")
    return dataset.dicom


def _decode(recipe: Recipe, journal: Journal, folder: Path, workers: int, progress: ProgressReport) -> int:
    """Prepare the files that are new or changed, record each result as it comes, and give their number.

    A damaged code stream may spoil a decoder's memory and kill it over the next file, so a file whose worker died is
    tried a second time, after all others: only the culprit dies again.
    """
    num_todo, num_done = journal.num_todo(), 0
    todo: Iterable[_Task] = _tasks(journal, folder) if num_todo else ()
    prepare = functools.partial(prepare_file, recipe)
    progress(0, num_todo)
    for is_last in (False, True):
        died: list[_Task] = []
        results = map_isolated(prepare, todo, workers=workers, timeout_s=FILE_TIMEOUT_S, argument=_path_of)
        for task, result in results:
            number, _, stamp = task
            if isinstance(result, Lost):
                if result.loss is Loss.DIED and not is_last:
                    died.append(task)
                    continue
                result = Refusal(_LOST[result.loss], result.detail)
                logger.warning("file %d: %s: %s", number, result.reason, result.detail)
            journal.record(number, stamp, result)
            num_done += 1
            progress(num_done, num_todo)
        todo = died
    return num_done


def _tasks(journal: Journal, folder: Path) -> Iterator[_Task]:
    for path in files_below(folder):
        number = journal.number_if_todo(journal.name(path))
        if number is not None:
            yield number, folder / path, stamp_of(folder / path)


def _path_of(task: _Task) -> Path:
    return task[1]


def _forget_lost_images(journal: Journal, exams: Iterable[DecidedExam], prepared: Path) -> bool:
    """Forget the results of images that count and are no longer there, whole; gives whether there were any."""
    lost = [
        image.number
        for exam in exams
        for image in exam.images
        if not _is_whole(prepared / image.item.path, image.item.png_bytes)
    ]
    for number in lost:
        journal.redo(number)
    return bool(lost)


def _is_whole(path: Path, num_bytes: int) -> bool:
    try:
        return path.stat().st_size == num_bytes
    except OSError:
        return False


def _count_and_write(
    journal: Journal, exams: Iterable[DecidedExam], summary: Summary, tables: PreparedTables | None
) -> None:
    """Count every exam and every refusal, and write them to the tables, if there are any to write."""
    refusals = ((number, refusal) for exam in exams for number, refusal in _keep(exam, journal, summary, tables))
    for number, refusal in chain(refusals, journal.refused()):
        summary.refused[refusal.reason] += 1
        if tables is not None:
            tables.add("refused", refused_row(number, refusal))
    summary.num_patients = journal.num_patients_kept()


def _keep(
    exam: DecidedExam, journal: Journal, summary: Summary, tables: PreparedTables | None
) -> list[tuple[int, Refusal]]:
    summary.count(exam)
    for image in exam.images:
        journal.keep(image.item)
        if tables is not None:
            tables.add("images", image_row(image))
    if exam.row is not None and tables is not None:
        tables.add("exams", exam.row)
    return exam.refused


def _sweep(journal: Journal, prepared: Path) -> None:
    """Remove images that no row names: of vanished and changed files, and of runs that were killed."""
    for parent, _, files in os.walk(prepared / "images", topdown=False):
        folder = Path(parent)
        for name in files:
            if not journal.is_kept((folder / name).relative_to(prepared).as_posix()):
                (folder / name).unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
