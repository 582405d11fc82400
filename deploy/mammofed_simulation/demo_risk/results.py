"""The numbers of the demo of risk as records; `results.json` holds them all."""

from collections.abc import Mapping

from mammofed_shared.config.base import Settings
from mammofed_simulation.demo_risk.reasons import Reasons


class Figure(Settings):
    """AUROC of one year at one place, and what stands behind it; None where one class is missing."""

    place: str
    year: str
    auroc: float | None
    num_exams: int
    num_cancers: int


class ModelRow(Settings):
    """One model: its figures at every hospital and over all."""

    model: str
    figures: tuple[Figure, ...]

    def at(self, place: str, year: str) -> Figure | None:
        """The figure of a place and a year; None where no outcome is known."""
        return next((item for item in self.figures if (item.place, item.year) == (place, year)), None)


class RiskResults(Settings):
    """Everything that the demo prints."""

    seed: int
    sites: tuple[str, ...]
    rows: tuple[ModelRow, ...]
    explained_variance: Mapping[str, float]
    """Hospital → share of the frozen features' variance that the autoencoder's shortest code gives back."""
    reasons: Reasons
    page: str
    minutes: Mapping[str, float]
