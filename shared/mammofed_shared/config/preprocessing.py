"""What a training image is. Sites that disagree on it must not train together, so it has a digest."""

import hashlib
from typing import Literal

from pydantic import Field

from mammofed_shared.config.base import Settings


class PreprocessingSettings(Settings):
    """How a DICOM image becomes a training image; the values of the paper are the defaults (domain.md §1, §7)."""

    height: int = Field(1520, ge=32, le=8192)
    """Rows of the stored image."""
    width: int = Field(912, ge=32, le=8192)
    """Columns of the stored image."""
    resize: Literal["area", "bilinear"] = "area"
    """`area` keeps microcalcifications when shrinking; `bilinear` is the paper's."""
    window: Literal["paper", "voi", "percentile"] = "paper"
    """`paper`: minimum to maximum of the image; `voi`: the vendor's window; `percentile`: 0.5 to 99.5 %."""
    background_threshold: int = Field(40, ge=0, le=255)
    """8-bit values below it count as background when the breast is found."""
    keep_background: bool = False
    """Keep what lies outside the breast (the authors' released code does); the paper sets it to 0."""

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of these settings."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
