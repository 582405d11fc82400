"""What features take before they are computed, as a file between worker and parent, which is free of torch."""

from mammofed_shared.config.base import Settings
from mammofed_shared.config.features import FeatureKind

FEATURES_FILE = "features.json"


class FeatureFigures(Settings):
    """Disk and time of one kind of features. Bytes are those on disk."""

    kind: FeatureKind
    row_shape: tuple[int, ...]
    """Of one item."""
    num_items: int
    """Images, or pairs of images, that may be read."""
    num_missing: int
    """Those whose features are not kept yet."""
    item_s: float = 0.0
    """Seconds that one process takes to compute an item; 0 where none is missing, or nobody measured."""
    bytes_all: int
    """Of this kind, when all of it is kept."""
    bytes_missing: int
    """Of those that are not kept yet."""
    bytes_others: int
    """Of all other features that are kept here."""

    def exceeds(self, quota_gb: float) -> bool:
        """Whether what would be kept is more than the quota, in GB (10⁹ bytes)."""
        return self.num_missing > 0 and self.bytes_all + self.bytes_others > 1e9 * quota_gb

    def compute_s(self, processes: int) -> float:
        """Seconds until all of it is kept."""
        return self.num_missing * self.item_s / processes

    def in_words(self, quota_gb: float) -> str:
        """What would be kept beside the quota."""
        return (
            f"{self.kind.slug} features take {self.bytes_all / 1e9:.3g} GB, {self.bytes_others / 1e9:.3g} GB of others "
            f"are kept, and features.quota_gb is {quota_gb:g}"
        )


WAYS_OUT = (
    "Raise features.quota_gb; or remove kept features that no run needs (`site-client features` lists them); or set "
    "features.over_quota to recompute, which costs the encoder's time in every epoch"
)
"""What a site can do where features take more than its quota."""
