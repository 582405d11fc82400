"""The demo from beginning to end, each part announced to the reader."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from mammofed_simulation.demo.clock import Clock
from mammofed_simulation.demo.comparisons import plan_comparisons, run_comparisons
from mammofed_simulation.demo.configuration import DemoConfigs, write_configs
from mammofed_simulation.demo.enrolment import enrol_all, install_key
from mammofed_simulation.demo.examples import Example, phantom_example, real_example
from mammofed_simulation.demo.folder import DemoFolder, claim
from mammofed_simulation.demo.gather import gather
from mammofed_simulation.demo.joint import run_joint
from mammofed_simulation.demo.page import NOTICE
from mammofed_simulation.demo.population import populations_of
from mammofed_simulation.demo.processes import Processes
from mammofed_simulation.demo.report import write_report
from mammofed_simulation.demo.results import Results
from mammofed_simulation.demo.summary import print_summary
from mammofed_simulation.demo.watching import Lines, LiveTable, Watcher
from mammofed_simulation.hospitals import DemoHospital, write_hospital

_NUM_PHASES = 6
_INDENT = "     "


def tell(seed: int, output: Path, console: Console) -> Results:
    """Run the whole demo; whatever it started has ended when this returns or raises.

    Raises:
        MammofedError: something went wrong; a missed bar is no error here.
    """
    console.print(f"[bold]mammofed demo[/bold], seed {seed}. {NOTICE}")
    folder = claim(output)
    commands: list[str] = []

    def show(command: str) -> None:
        commands.append(command)
        console.print(f"{_INDENT}[cyan]$ {command}[/cyan]", soft_wrap=True)

    processes = Processes(folder.logs, show)
    try:
        return _tell(_Stage(console, folder, write_configs(folder, seed), processes, commands))
    finally:
        processes.stop_all()


class _Stage:
    """What every part of the demo needs."""

    def __init__(
        self, console: Console, folder: DemoFolder, configs: DemoConfigs, processes: Processes, commands: list[str]
    ) -> None:
        self.console = console
        self.folder = folder
        self.configs = configs
        self.processes = processes
        self.commands = commands

    def say(self, words: str) -> None:
        """A line under the part that is going on."""
        self.console.print(f"{_INDENT}{words}", soft_wrap=True)


def _tell(stage: _Stage) -> Results:
    clock = Clock(stage.console, _NUM_PHASES)
    folder, configs, processes = stage.folder, stage.configs, stage.processes
    with clock.phase("Hospitals", "Each hospital's PACS writes phantom exams as DICOM, with reports or attributes."):
        hospitals = _write_hospitals(stage)
    with clock.phase("Enrolment", "The lead makes a certificate authority; each site makes a key and gets it signed."):
        enrol_all(processes, folder, configs)
    with clock.phase("Preprocessing", "Each hospital turns its DICOM files into training images. Nothing leaves it."):
        _preprocess(stage, hospitals)
    with clock.phase("Joint run", "A coordinator and three clients over mutual TLS; one client will be killed."):
        interruption = run_joint(processes, configs, _watcher(stage))
    comparisons = plan_comparisons(configs.run)
    with clock.phase("Comparisons", f"{len(comparisons)} other runs on the same prepared data, two at a time."):
        run_comparisons(processes, folder, configs, comparisons, stage.say)
    with clock.phase("Report", "The numbers of all runs, and example images."):
        results = gather(folder, configs, comparisons, interruption, {})
        examples = _examples(configs, hospitals)
    results = results.model_copy(update={"minutes": clock.minutes})
    paths = write_report(folder, configs, results, examples, stage.commands)
    print_summary(stage.console, results, paths)
    return results


def _write_hospitals(stage: _Stage) -> dict[str, DemoHospital]:
    hospitals = {}
    for site in stage.configs.sites:
        hospitals[site] = write_hospital(site, stage.folder.hospitals / site, stage.configs.run.seed)
        names = " and ".join(dataset.name for dataset in hospitals[site].datasets)
        stage.say(f"{site}: {names} in {stage.folder.hospitals / site}")
    return hospitals


def _preprocess(stage: _Stage, hospitals: Mapping[str, DemoHospital]) -> None:
    for site, settings in stage.configs.sites.items():
        install_key(settings.folder, hospitals[site].key)
        config = str(stage.configs.site_files[site])
        stage.processes.run(f"preprocess-{site}", "site-client", "preprocess", "--site", site, "--config", config)
        for item in populations_of(settings):
            stage.say(
                f"{item.dataset}: {item.num_images:,} images taken, {item.num_refused} files refused; "
                f"{item.num_train} exams to train on, {item.num_test} held out"
            )


def _watcher(stage: _Stage) -> Watcher:
    return LiveTable(stage.console) if stage.console.is_terminal else Lines(stage.console, stage.folder)


def _examples(configs: DemoConfigs, hospitals: Mapping[str, DemoHospital]) -> list[Example]:
    examples = []
    for site, settings in configs.sites.items():
        phantoms = next(export for export in hospitals[site].datasets if export.boxes is not None)
        examples.append(phantom_example(settings, phantoms, hospitals[site].key))
    for settings in configs.sites.values():
        examples += [real_example(settings, item) for item in settings.datasets if item.profile == "cbis-ddsm"]
    return examples
