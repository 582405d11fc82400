"""What ``site-client explain`` and ``site-client atlas`` are asked for. This file is light: torch is loaded by name."""

import importlib
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import ConfigurationError
from mammofed_shared.pseudonyms import Pseudonyms
from mammofed_site.explanations.find_exam import FoundExam, find_exam

EXPLAIN_MODULE = "mammofed_site.explanations.explain"
ATLAS_MODULE = "mammofed_site.explanations.atlas"
"""Loaded by name, so that the imports of `site-client` stay free of torch."""
PAGES_FOLDER = "explanations"
"""In the site's folder; readable by its owner only."""


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """What is asked of one exam: the folders of heads and autoencoder, the year to take apart, and how exactly."""

    risk: tuple[Path, ...]
    autoencoder: Path | None
    year: int
    permutations: int
    num_neurons: int


@dataclass(frozen=True, slots=True)
class AtlasRequest:
    """What is asked of a site: the autoencoder's folder, how many neurons, images of each, and images to look at."""

    autoencoder: Path
    num_neurons: int
    images_per_neuron: int
    most_images: int


def explain_site_exam(
    settings: SiteSettings, key: bytes, given: str, request: ExplainRequest, console: Console
) -> Path:
    """Write the page of one exam and give its path.

    Args:
        key: the site's pseudonym key.
        given: pseudonym, accession number or study UID.

    Raises:
        ConfigurationError: a model is missing or of another run.
        DataError: there is no such exam, or no head reads it.
    """
    if not request.risk:
        raise ConfigurationError("--risk is needed: the folder that `fl-server export` wrote of a risk run")
    prepared = {item.name: settings.prepared_folder(item) for item in settings.datasets}
    found: FoundExam = find_exam(prepared, Pseudonyms(key), given.strip())
    with _bar(console) as bar:
        task = bar.add_task("explain", total=None)
        page: Path = importlib.import_module(EXPLAIN_MODULE).explain(
            settings, found, request, lambda done, total: bar.update(task, completed=done, total=total)
        )
    return page


def make_site_atlas(settings: SiteSettings, request: AtlasRequest, console: Console) -> Path:
    """Write the page of all neurons and give its path; a call that was interrupted is gone on with.

    Raises:
        ConfigurationError, DataError: as ``explain_site_exam``.
    """
    with _bar(console) as bar:
        tasks = {name: bar.add_task(name, total=None) for name in ("images", "sentences")}
        page: Path = importlib.import_module(ATLAS_MODULE).make_atlas(
            settings, request, lambda name, done, total: bar.update(tasks[name], completed=done, total=total)
        )
    return page


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)
