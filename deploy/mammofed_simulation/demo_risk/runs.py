"""The runs of the demo of risk: three over all hospitals, and each head at each hospital alone.

All are runs of `fl-simulate`: the weights are those of the same run over mutual TLS, to the bit (tests/flows).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from mammofed_shared.config.loading import load
from mammofed_shared.config.run import EvaluationSettings, RunSettings
from mammofed_shared.config.schedule import ScheduleSettings
from mammofed_shared.files import write_whole
from mammofed_simulation.demo.configuration import write_settings

CONFIGS = Path("configs/run")
HEADS = ("risk-mirai", "risk-asymmirai")
AUTOENCODER = "sae"


@dataclass(frozen=True, slots=True)
class RiskRun:
    """One run: a task over some of the hospitals, and its files."""

    task: str
    name: str
    folder: Path

    @property
    def run_file(self) -> Path:
        """The run's YAML."""
        return self.folder / "run.yaml"

    @property
    def simulation_file(self) -> Path:
        """What `fl-simulate` is given."""
        return self.folder / "simulation.yaml"

    @property
    def result(self) -> Path:
        """Where `fl-simulate` keeps its `server` and its `sites`."""
        return self.folder / "result"


def write_runs(root: Path, seed: int, encoder: Path, site_files: Mapping[str, Path]) -> list[RiskRun]:
    """Write the YAML files of all runs, the longest first."""
    sites = tuple(site_files)
    runs = [_write_run(root, task, task, seed, encoder, sites, site_files) for task in (AUTOENCODER, *HEADS)]
    for task in HEADS:
        runs += [_write_run(root, task, f"{task}-{site}", seed, encoder, (site,), site_files) for site in sites]
    return runs


def _write_run(
    root: Path,
    task: str,
    name: str,
    seed: int,
    encoder: Path,
    trained_at: Sequence[str],
    site_files: Mapping[str, Path],
) -> RiskRun:
    """A run over all hospitals is evaluated at all of them, and so is one that trains at a single one."""
    one = RiskRun(task, name, root / "runs" / name)
    settings = load(CONFIGS / f"demo-{task}.yaml", RunSettings)
    schedule = settings.schedule
    if len(trained_at) == 1:  # as many epochs of its own data as the joint run takes
        epochs = schedule.rounds * schedule.epochs
        schedule = ScheduleSettings(rounds=1, order=tuple(trained_at), epochs=epochs)
    server = settings.server.model_copy(update={"folder": one.result / "server"})
    settings = settings.model_copy(
        update={
            "run": name,
            "seed": seed,
            "schedule": schedule,
            "encoder": encoder,
            "server": server,
            "evaluation": EvaluationSettings(when="end"),
        }
    )
    by_hand = f"Run it by hand: fl-simulate --config {one.simulation_file}"
    write_settings(one.run_file, settings, f"Run {name} of this demo.\n{by_hand}")
    values = {
        "run": str(one.run_file),
        "sites": [str(site_files[site]) for site in settings.sites],
        "folder": str(one.result),
    }
    write_whole(one.simulation_file, f"# {by_hand}\n" + yaml.safe_dump(values, sort_keys=False))
    return one
