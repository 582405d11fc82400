"""Which features of the frozen encoder a task reads instead of pixels, and how much disk a site gives them.

Shapes of what one item (an image; of ``asymmetry`` a pair of images) has: F features of a pooled vector, C channels of
the encoder's map, h rows and w columns of the map.
"""

import re
from typing import Annotated, Literal, Protocol, TypeAlias, runtime_checkable

from pydantic import Field

from mammofed_shared.config.base import Settings

Size = Annotated[int, Field(ge=1, le=64)]


class PooledFeatures(Settings):
    """One vector an image (F,), pooled as the encoder was trained."""

    kind: Literal["pooled"] = "pooled"

    @property
    def slug(self) -> str:
        """A name for folders and tables."""
        return self.kind


class AsymmetryFeatures(Settings):
    """What differs between the breasts at each place of one view: |Z_right − Z_left|, max-pooled (paper: AsymMIRAI
    w/ Mammo-FM), (C, h', w') a pair of images."""

    kind: Literal["asymmetry"] = "asymmetry"
    window: tuple[Size, Size]
    """Rows and columns of the map that one pooled value looks at: the paper's (a, b)."""
    stride: tuple[Size, Size] = (1, 1)
    """Rows and columns from one window to the next."""

    @property
    def slug(self) -> str:
        """A name for folders and tables."""
        return f"{self.kind}-{self.window[0]}x{self.window[1]}-{self.stride[0]}x{self.stride[1]}"


class PatchFeatures(Settings):
    """Vectors of single cells of the map that show breast (n, C), drawn by the image's digest."""

    kind: Literal["patches"] = "patches"
    num_patches: int = Field(ge=1, le=1024)
    """Cells of an image."""

    @property
    def slug(self) -> str:
        """A name for folders and tables."""
        return f"{self.kind}-{self.num_patches}"


class MapFeatures(Settings):
    """The whole map (C, h, w)."""

    kind: Literal["maps"] = "maps"

    @property
    def slug(self) -> str:
        """A name for folders and tables."""
        return self.kind


FeatureKind: TypeAlias = Annotated[
    PooledFeatures | AsymmetryFeatures | PatchFeatures | MapFeatures, Field(discriminator="kind")
]


def kind_named(slug: str) -> FeatureKind:
    """The kind of this name, such as ``pooled``, ``maps``, ``patches-16``, ``asymmetry-9x5-1x1``.

    Raises:
        ValueError: there is none.
    """
    if slug in ("pooled", "maps"):
        return PooledFeatures() if slug == "pooled" else MapFeatures()
    if found := re.fullmatch(r"patches-(\d+)", slug):
        return PatchFeatures(num_patches=int(found[1]))
    if found := re.fullmatch(r"asymmetry-(\d+)x(\d+)-(\d+)x(\d+)", slug):
        rows, columns, down, right = map(int, found.groups())
        return AsymmetryFeatures(window=(rows, columns), stride=(down, right))
    raise ValueError(f"expected pooled, maps, patches-N or asymmetry-AxB-CxD (window, stride), found {slug!r}")


@runtime_checkable
class ReadsFeatures(Protocol):
    """The settings of a task that reads features of the frozen encoder."""

    encoder_features: int
    """Length of one vector: F of ``pooled``, else C. A site whose encoder gives another number is refused."""

    @property
    def features(self) -> FeatureKind:
        """What the task reads."""


class FeatureCacheSettings(Settings):
    """Features that are computed once and kept in the site's folder (docs/data.md, Features)."""

    quota_gb: float = Field(50.0, ge=0)
    """Disk that all kept features together may take, in GB (10⁹ bytes)."""
    over_quota: Literal["refuse", "recompute"] = "refuse"
    """What follows where a task's features would take more: `refuse` the visit, or `recompute` them from the images
    whenever they are read, which keeps nothing and costs the encoder's time in every epoch."""
