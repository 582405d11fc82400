"""The data of one site as a task is given them, and what a task asks of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mammofed_shared.config.tasks import DATASETS
from mammofed_shared.data.translations import Translations
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.exam import Exam
from mammofed_shared.report.token_cache import CachedTokenizer
from mammofed_shared.training.share import UNTOLD


@dataclass(frozen=True, slots=True)
class SiteData:
    """Exams of a site's data sets, and what reads and tells of them.

    ``datasets`` are the names of the data sets in the order of the site's YAML; outside the site they are numbers.
    ``text_encoder`` and ``encoder`` (the frozen model) are folders; a task has those that it needs. Of a group of fewer
    than ``least_cell`` patients no figure is told. ``caches`` is the site's folder for what can be made again; None
    keeps nothing. ``loaders`` are threads that read images ahead.
    """

    exams: Sequence[Exam]
    datasets: tuple[str, ...]
    text_encoder: Path | None
    least_cell: int
    prepared: tuple[Path, ...] = field(default=())
    """Folders of the data sets."""
    caches: Path | None = None
    loaders: int = 2
    encoder: Path | None = None

    @property
    def text_encoder_folder(self) -> Path:
        """Folder of the text encoder, for a task that trains one."""
        assert self.text_encoder is not None, "a plan whose task needs it names its digest"
        return self.text_encoder

    @property
    def encoder_folder(self) -> Path:
        """Folder of the frozen model, for a task that stands on one."""
        assert self.encoder is not None, "a plan whose task needs it names its digest"
        return self.encoder

    def tokenizer(self, max_tokens: int) -> CachedTokenizer:
        """The site's tokenizer, which tokenises no text twice."""
        return CachedTokenizer(self.text_encoder_folder, max_tokens, self.caches)

    def told_numbers(self, exams: Iterable[Exam]) -> dict[str, int]:
        """Name of a data set → its number (0, 1, …), or ``UNTOLD`` where too few patients of these exams are in it."""
        patients: dict[str, set[str]] = {name: set() for name in self.datasets}
        for exam in exams:
            patients[exam.dataset].add(exam.patient)
        return {
            name: number if number < len(DATASETS) and len(patients[name]) >= self.least_cell else UNTOLD
            for number, name in enumerate(self.datasets)
        }

    def translations(self) -> Translations:
        """Back-translations that `site-client augment-text` has made."""
        return Translations(self.prepared)


def require_shares(num_samples: int, num_steps: int, num_processes: int) -> None:
    """Refuse a group of which a process would have nothing to compute in some step.

    Raises:
        VisitFailed: SETTINGS.
    """
    smallest = num_samples // num_steps
    if smallest < num_processes:
        raise VisitFailed(
            RefusalCode.SETTINGS,
            f"the smallest batch of this site has {smallest} samples, fewer than worker.processes ({num_processes}): "
            "lower worker.processes",
        )
