"""What the joint model is compared with: FedAvg, pooled data, and each site alone with two seeds.

Each is a run of `fl-simulate` on the data that the hospitals have prepared, evaluated at its end at all of them. Pooled
data takes as many optimizer steps as the joint run. A site alone trains as often as it does in the joint run, a third
of the steps: with as many steps as all together, two seeds of each would take the demo five minutes longer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from mammofed_server.schedule import Visit, make_schedule
from mammofed_shared.config.run import EvaluationSettings, RunSettings
from mammofed_shared.config.schedule import ScheduleSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.files import write_whole
from mammofed_simulation.demo.configuration import DemoConfigs, write_settings
from mammofed_simulation.demo.folder import DemoFolder
from mammofed_simulation.demo.lanes import simulate_all
from mammofed_simulation.demo.processes import Processes

POOLED = "pooled"
FEDAVG_ROUNDS = 6
SECOND_SEED = 1000
"""Added to the demo's seed for the second run of a comparison: other first weights and batches, the same patients."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One run beside the joint one; ``kind`` is the row of the table in which it counts."""

    kind: str
    seed: int
    schedule: ScheduleSettings
    extra_sites: tuple[str, ...] = ()
    warmup_epochs: float | None = None
    """None: as in the joint run."""

    @property
    def name(self) -> str:
        """Name of the run and of its folder."""
        return f"{self.kind}-{self.seed}"


def plan_comparisons(joint: RunSettings) -> list[Comparison]:
    """All comparisons of a joint run, the longest first, so that two lanes end at about the same time."""
    sites, visits = joint.sites, visits_of(joint)
    alone = [
        Comparison(
            f"alone-{site}",
            seed,
            ScheduleSettings(
                rounds=1, order=(site,), epochs=sum(visit.epochs for visit in visits if visit.site == site)
            ),
        )
        for seed in (joint.seed, joint.seed + SECOND_SEED)
        for site in sites
    ]
    # An epoch of pooled data is one of every site: in steps, a third as much warm-up is as long.
    pooled = Comparison(
        POOLED,
        joint.seed,
        ScheduleSettings(rounds=1, order=(POOLED,), epochs=sum(visit.epochs for visit in visits) // len(sites)),
        extra_sites=(POOLED,),
        warmup_epochs=joint.task.optimizer.warmup_epochs / len(sites),
    )
    fedavg = Comparison("fedavg", joint.seed, ScheduleSettings(kind="fedavg", rounds=FEDAVG_ROUNDS))
    return [fedavg, pooled, *alone]


def visits_of(joint: RunSettings) -> list[Visit]:
    """All visits of a run."""
    return [visit for turn in make_schedule(joint.schedule, joint.training_sites).turns for visit in turn.visits]


def run_comparisons(
    processes: Processes,
    folder: DemoFolder,
    configs: DemoConfigs,
    comparisons: Sequence[Comparison],
    say: Callable[[str], None],
) -> None:
    """Run all comparisons, ``LANES`` at a time.

    Raises:
        CommandFailed: a simulation ended with an error.
    """
    site_files = write_sites(folder, configs)
    simulate_all(
        processes, [(item.name, write_simulation(folder, configs.run, item, site_files)) for item in comparisons], say
    )


def result_folder(folder: DemoFolder, comparison: Comparison) -> Path:
    """Where a comparison keeps its `server` and its `sites`."""
    return folder.comparisons / comparison.name / "result"


def write_sites(folder: DemoFolder, configs: DemoConfigs) -> dict[str, Path]:
    """YAML files of the sites for one thread each, and of one more that has the data of all."""
    sites = {site: _for_one_thread(settings) for site, settings in configs.sites.items()}
    datasets = [dataset for settings in sites.values() for dataset in settings.datasets]
    first = next(iter(sites.values()))
    pooled = folder.comparisons / "sites" / POOLED
    sites[POOLED] = first.model_copy(
        update={"site": POOLED, "datasets": tuple(datasets), "folder": pooled, "identity": pooled / "identity"}
    )
    files = {}
    for site, settings in sites.items():
        files[site] = folder.comparisons / "sites" / f"{site}.yaml"
        write_settings(files[site], settings, f"Site {site} in the comparisons of this demo, for `fl-simulate`.")
    return files


def _for_one_thread(settings: SiteSettings) -> SiteSettings:
    datasets = tuple(
        dataset.model_copy(update={"prepared": settings.prepared_folder(dataset)}) for dataset in settings.datasets
    )
    worker = settings.worker.model_copy(update={"threads": 1})
    return settings.model_copy(update={"datasets": datasets, "worker": worker})


def write_simulation(
    folder: DemoFolder, joint: RunSettings, comparison: Comparison, site_files: dict[str, Path]
) -> Path:
    own = folder.comparisons / comparison.name
    optimizer = joint.task.optimizer
    if comparison.warmup_epochs is not None:
        optimizer = optimizer.model_copy(update={"warmup_epochs": comparison.warmup_epochs})
    run = joint.model_copy(
        update={
            "run": comparison.name,
            "seed": comparison.seed,
            "sites": (*joint.sites, *comparison.extra_sites),
            "schedule": comparison.schedule,
            "evaluation": EvaluationSettings(when="end", sites=joint.sites),
            "task": joint.task.model_copy(update={"optimizer": optimizer}),
            "tracking": joint.tracking.model_copy(update={"enabled": False}),  # an MLflow database takes 10 s to make
        }
    )
    simulation = own / "simulation.yaml"
    by_hand = f"Run it by hand: fl-simulate --config {simulation}"
    write_settings(own / "run.yaml", run, f"Comparison {comparison.name} of this demo.\n{by_hand}")
    values = {
        "run": str(own / "run.yaml"),
        "sites": [str(site_files[site]) for site in run.sites],
        "folder": str(result_folder(folder, comparison)),
    }
    write_whole(simulation, f"# {by_hand}\n" + yaml.safe_dump(values, sort_keys=False))
    return simulation
