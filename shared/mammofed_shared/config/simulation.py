"""Configuration of a simulation: a run and its sites, all on one machine."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from mammofed_shared.config.base import Settings


class SimulationSettings(Settings):
    """Which run, which sites, and on what grid they meet."""

    run: Path
    """The run's YAML, the same that `fl-server` takes."""
    sites: tuple[Path, ...] = Field(min_length=1)
    """The sites' YAML files, the same that `site-client` takes."""
    folder: Path
    """Where the simulation keeps the coordinator's state and the sites' visits; their prepared data is only read."""
    grid: Literal["in-process", "ray"] = "in-process"
    """`in-process`: one visit after the other in worker processes; `ray`: Flower's simulation engine."""
