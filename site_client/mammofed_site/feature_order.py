"""What a worker group is told when features alone are to be computed (`site-client features`). Free of torch.

<site folder>/feature-pass/order.json, features.json    the order, and what the features take; gone when it is over
"""

from pathlib import Path

from mammofed_shared.config.base import Digest, Settings
from mammofed_shared.config.features import FeatureCacheSettings, FeatureKind
from mammofed_shared.config.site import WorkerSettings
from mammofed_shared.config.tasks import TaskSettings

ORDER_FILE = "order.json"


class FeatureOrder(Settings):
    """All that a worker is told."""

    kind: FeatureKind
    task: TaskSettings | None
    """Whose features; None: those of all exams."""
    is_prediction: bool
    """Only tell what they would take."""
    datasets: tuple[tuple[str, Path], ...]
    """Name and prepared folder of each data set."""
    encoder: Path
    preprocessing: Digest
    features: FeatureCacheSettings
    worker: WorkerSettings
    caches: Path
    log_file: Path
