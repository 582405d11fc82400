"""What ``site-client preprocess`` shows: a bar while it works, a table at the end, and the quality page to look at."""

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from mammofed_shared.config.site import DatasetSettings, SiteSettings
from mammofed_shared.errors import DataError
from mammofed_shared.pseudonyms import Pseudonyms
from mammofed_site.export import locate
from mammofed_site.intake_summary import Summary, summary_table
from mammofed_site.preprocess import dicom_folder, preprocess
from mammofed_site.quality.page import sample_refused, write_quality_page


def preprocess_site(settings: SiteSettings, key: bytes, console: Console, *, is_dry: bool) -> None:
    """Prepare every data set of the site and show what came out; a dry run writes nothing.

    Raises:
        DataError: a data set has no export, or a CSV beside it cannot be read.
        StateError: another process is preparing a data set.
    """
    for dataset in settings.datasets:
        dicom_folder(dataset)  # all of them exist before hours are spent on the first
    for dataset in settings.datasets:
        summary = preprocess_with_progress(settings, dataset, key, console, is_dry=is_dry)
        console.print(summary_table(settings.site, summary))
        if is_dry:
            console.print("dry run: nothing was written")
        else:
            console.print(f"look at it: {make_quality_page(settings, dataset, key)}", soft_wrap=True)


def preprocess_with_progress(
    settings: SiteSettings,
    dataset: DatasetSettings,
    key: bytes,
    console: Console | None = None,
    *,
    is_dry: bool = False,
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
        return preprocess(
            settings,
            dataset,
            key,
            lambda done, total: bar.update(task, completed=done, total=total),
            is_dry=is_dry,
        )


def make_quality_page(settings: SiteSettings, dataset: DatasetSettings, key: bytes) -> Path:
    """Write the quality page of a prepared data set and give its path."""
    prepared = settings.prepared_folder(dataset)
    page = settings.folder / "quality" / f"{dataset.name}.html"
    write_quality_page(
        page,
        site=settings.site,
        dataset=dataset.name,
        prepared=prepared,
        refused_files=locate(dicom_folder(dataset), prepared, sample_refused(prepared), Pseudonyms(key)),
        workers=settings.worker.preprocess_workers,
    )
    return page


def locate_file(settings: SiteSettings, key: bytes, number: int, dataset: str | None) -> list[tuple[str, Path]]:
    """Data set and path of the file that has a local number, in every data set or in the named one.

    Raises:
        DataError: no data set has a file of this number, or it is no longer there.
    """
    found = []
    for item in settings.datasets:
        if dataset in (None, item.name) and item.dicom is not None:
            files = locate(item.dicom, settings.prepared_folder(item), [number], Pseudonyms(key))
            found += [(item.name, path) for path in files.values()]
    if not found:
        raise DataError(
            f"no file has number {number}, or it is no longer in the export: numbers are those of refused.parquet"
        )
    return found


class _FilesPerSecond(ProgressColumn):
    """Speed of the run so far."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("– files/s" if speed is None else f"{speed:.0f} files/s")
