"""The demo of risk from beginning to end, each part announced to the reader."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from mammofed_server.run_state import RunState
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.files import write_whole
from mammofed_simulation.demo.clock import Clock
from mammofed_simulation.demo.folder import claim
from mammofed_simulation.demo.lanes import simulate_all
from mammofed_simulation.demo.page import NOTICE
from mammofed_simulation.demo.processes import Processes
from mammofed_simulation.demo_risk.configuration import joint_run_file, write_site
from mammofed_simulation.demo_risk.discrimination import last_scores, row_of, teacher_scores
from mammofed_simulation.demo_risk.reasons import YEAR, Planted, Reasons, judge, planted_exams
from mammofed_simulation.demo_risk.results import ModelRow, RiskResults
from mammofed_simulation.demo_risk.runs import AUTOENCODER, HEADS, RiskRun, write_runs
from mammofed_simulation.demo_risk.summary import print_summary
from mammofed_simulation.hospitals import FOLLOWED, DemoHospital, write_hospital
from mammofed_site.explanations.models import load_models

_NUM_PHASES = 6
_INDENT = "     "


def tell(seed: int, demo: Path, output: Path, console: Console) -> RiskResults:
    """Run the whole demo; whatever it started has ended when this returns or raises.

    Args:
        demo: folder of a finished `make demo`, whose joint model is frozen here.

    Raises:
        MammofedError: something went wrong.
    """
    console.print(f"[bold]mammofed demo of risk[/bold], seed {seed}. {NOTICE}")
    joint = joint_run_file(demo)
    folder = claim(output)

    def show(command: str) -> None:
        console.print(f"{_INDENT}[cyan]$ {command}[/cyan]", soft_wrap=True)

    processes = Processes(folder.logs, show)
    try:
        return _Story(console, processes, folder.root, seed).tell(joint)
    finally:
        processes.stop_all()


class _Story:
    """The parts of the demo, and what they hand on."""

    def __init__(self, console: Console, processes: Processes, root: Path, seed: int) -> None:
        self._console = console
        self._processes = processes
        self._root = root
        self._seed = seed
        self._encoder = root / "encoder"
        self._hospitals: dict[str, DemoHospital] = {}
        self._sites: dict[str, SiteSettings] = {}
        self._site_files: dict[str, Path] = {}

    def tell(self, joint: Path) -> RiskResults:
        """All parts in their order."""
        clock = Clock(self._console, _NUM_PHASES)
        with clock.phase("Frozen model", "The joint model of `make demo`; from here on nothing of it moves."):
            self._run("export-encoder", "fl-server", "export", "--config", str(joint), "--output", str(self._encoder))
        with clock.phase("Hospitals", "Other patients of the same hospitals, who were followed for up to nine years."):
            self._write_hospitals()
        with clock.phase("Preprocessing", "DICOM files become images, and images the frozen model's features."):
            self._preprocess()
        runs = write_runs(self._root, self._seed, self._encoder, self._site_files)
        with clock.phase("Training", f"{len(runs)} runs, two at a time: over all hospitals, and each hospital alone."):
            simulate_all(self._processes, [(one.name, one.simulation_file) for one in runs], self._say)
        with clock.phase("Reasons", "One page for a radiologist; and whether reasons point at the planted masses."):
            page, reasons = self._explain({one.name: one for one in runs})
        with clock.phase("Report", "AUROC of each year at each hospital."):
            rows = self._rows(runs)
        autoencoder = RunState.open(next(one for one in runs if one.task == AUTOENCODER).result / "server")
        results = RiskResults(
            seed=self._seed,
            sites=tuple(self._sites),
            rows=tuple(rows),
            explained_variance=_explained_variance(autoencoder),
            reasons=reasons,
            page=str(page),
            minutes=clock.minutes,
        )
        write_whole(self._root / "results.json", results.model_dump_json(indent=1))
        print_summary(self._console, results, self._root / "results.json")
        return results

    def _say(self, words: str) -> None:
        self._console.print(f"{_INDENT}{words}", soft_wrap=True)

    def _run(self, name: str, *words: str) -> str:
        return self._processes.run(name, *words)

    def _write_hospitals(self) -> None:
        for site in FOLLOWED:
            hospital = write_hospital(site, self._root / "hospitals" / site, self._seed, hospitals=FOLLOWED)
            self._hospitals[site] = hospital
            self._sites[site], self._site_files[site] = write_site(self._root, site, hospital, self._encoder)

    def _preprocess(self) -> None:
        for site, path in self._site_files.items():
            self._run(f"preprocess-{site}", "site-client", "preprocess", "--site", site, "--config", str(path))

    def _explain(self, runs: Mapping[str, RiskRun]) -> tuple[Path, Reasons]:
        """One page by the command of a hospital, and all held-out masses by the same code."""
        models = self._root / "models"
        for name in (*HEADS, AUTOENCODER):
            told = ("--config", str(runs[name].run_file), "--output", str(models / name))
            self._run(f"export-{name}", "fl-server", "export", *told)
        planted = {site: planted_exams(self._sites[site], self._hospitals[site]) for site in self._sites}
        site, shown = _most_interesting(planted)
        risks = [word for head in HEADS for word in ("--risk", str(models / head))]
        words = ["--site", site, "--config", str(self._site_files[site]), "--exam", shown.exam.exam, *risks]
        self._run("explain", "site-client", "explain", *words, "--autoencoder", str(models / AUTOENCODER))
        judged = load_models(self._sites[site], [models / HEADS[0]], models / AUTOENCODER)
        reasons = judge(judged, [item for own in planted.values() for item in own], self._told)
        return self._sites[site].folder / "explanations" / f"{shown.exam.exam}.html", reasons

    def _told(self, done: int, total: int) -> None:
        if done == total or done % 20 == 0:
            self._say(f"{done} of {total} held-out masses explained")

    def _rows(self, runs: Sequence[RiskRun]) -> list[ModelRow]:
        exams = {
            site: read_exams([(item.name, settings.prepared_folder(item)) for item in settings.datasets])
            for site, settings in self._sites.items()
        }
        teacher = {site: teacher_scores(own) for site, own in exams.items()}
        rows = [row_of("teacher", teacher)]
        for one in runs:
            if one.task in HEADS:
                rows.append(row_of(one.name, {site: last_scores(one.result, site) for site in self._sites}))
        return rows


def _most_interesting(planted: Mapping[str, Sequence[Planted]]) -> tuple[str, Planted]:
    """The first patient with a report whose cancer came soonest; of none, the first with a mass."""
    found = [
        (item.exam.report is None, item.exam.years_to_cancer if item.exam.years_to_cancer is not None else YEAR, site)
        for site, own in planted.items()
        for item in own
    ]
    items = [item for own in planted.values() for item in own]
    best = min(range(len(items)), key=lambda index: found[index][:2])
    return found[best][2], items[best]


def _explained_variance(run: RunState) -> dict[str, float]:
    record = run.evaluation(run.last_turn())
    assert record is not None, "the run was evaluated at its end"
    shortest = f"k{run.record.settings.task.levels[0]}"  # type: ignore[union-attr]  # a run of the task sae
    return {site: told[f"explained_variance/{shortest}"] for site, told in record.metrics.items()}
