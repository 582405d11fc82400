"""How much is measured while the task ``pretrain`` runs: part of the task's settings, the same at every site."""

from pydantic import Field

from mammofed_shared.config.base import Settings


class MeasureSettings(Settings):
    """What a visit validates, and what an evaluation adds to its zero-shot scores (docs/evaluation.md)."""

    validation_exams: int = Field(1000, ge=0)
    """Most exams of the split `validation` that a visit scores before and after training; 0 leaves validation out."""
    probe_exams: int = Field(0, ge=0)
    """Most exams of the split `train` to which a linear probe is fitted in each evaluation; 0 leaves the probe out."""
    images_at_once: int = Field(16, ge=1)
    """Images that are embedded together outside training; fewer where memory runs out."""
