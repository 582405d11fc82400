"""The data of one site as a task is given them, and what a task asks of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import torch

from mammofed_shared.config.features import FeatureCacheSettings, FeatureKind
from mammofed_shared.config.frozen_encoder import encoder_digest
from mammofed_shared.config.tasks import DATASETS
from mammofed_shared.data.feature_store import FeatureIdentity, FeatureStore
from mammofed_shared.data.features import Features
from mammofed_shared.data.translations import Translations
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.evaluation.cached_features import CachedFeatures, Missing
from mammofed_shared.evaluation.feature_encoder import FeatureEncoder
from mammofed_shared.exam import Exam
from mammofed_shared.report.token_cache import CachedTokenizer
from mammofed_shared.training.share import UNTOLD


@dataclass(frozen=True, slots=True)
class SiteData:
    """Exams of a site's data sets, and what reads and tells of them.

    ``datasets`` are the names of the data sets in the order of the site's YAML; outside the site they are numbers.
    ``text_encoder`` and ``encoder`` (the frozen model) are folders; a task has those that it needs. Of a group of fewer
    than ``least_cell`` patients no figure is told. ``caches`` is the site's folder for what can be made again; None
    keeps nothing. ``loaders`` are threads that read images ahead. ``preprocessing`` is the digest of the settings that
    the images were prepared with. With ``is_probe``, features that are not kept are zeros: only time is measured.
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
    preprocessing: str = ""
    feature_cache: FeatureCacheSettings = field(default_factory=FeatureCacheSettings)
    is_probe: bool = False

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

    def feature_store(self, kind: FeatureKind) -> FeatureStore | None:
        """Where the site keeps features of this kind; None where nothing is kept."""
        if self.caches is None:
            return None
        digest = _digest_of(self.encoder_folder, _signature(self.encoder_folder))
        return FeatureStore(self.caches, FeatureIdentity(encoder=digest, preprocessing=self.preprocessing, kind=kind))

    def features(self, kind: FeatureKind, device: torch.device) -> Features:
        """The site's features, for a task to read instead of pixels; what was computed later is not seen.

        Args:
            device: where the encoder computes what is not kept, if the site wants that.
        """
        missing: Missing = "refuse" if self.feature_cache.over_quota == "refuse" and self.caches else "recompute"
        make_encoder = partial(FeatureEncoder, self.encoder_folder, kind, device)
        return CachedFeatures(kind, self.feature_store(kind), make_encoder, "zeros" if self.is_probe else missing)

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


def _signature(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Changes whenever a file of a folder does."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)


@lru_cache(8)
def _digest_of(folder: Path, signature: object) -> str:
    """Digest of a frozen model, which has 0.7 GB: a process hashes it once, however many features it opens."""
    return encoder_digest(folder)
