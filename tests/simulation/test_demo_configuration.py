"""The YAML files that a demo writes: everything below its own folder, and comparisons of equal length."""

from pathlib import Path

import pytest

from mammofed_shared.config.loading import load
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.simulation import SimulationSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import ConfigurationError
from mammofed_simulation.demo import comparisons as module
from mammofed_simulation.demo.comparisons import POOLED, Comparison, plan_comparisons, result_folder, visits_of
from mammofed_simulation.demo.configuration import DemoConfigs, write_configs
from mammofed_simulation.demo.folder import DemoFolder, claim
from mammofed_simulation.simulate import simulated

ROOT = Path(__file__).parents[2]
SITES = ("central", "mayo", "emory")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoFolder:
    monkeypatch.chdir(ROOT)
    return claim(tmp_path / "demo")


@pytest.fixture
def configs(folder: DemoFolder) -> DemoConfigs:
    return write_configs(folder, seed=5)


def test_everything_of_a_demo_lies_below_its_folder(folder: DemoFolder, configs: DemoConfigs) -> None:
    assert "demo-output" in (ROOT / "configs/run/demo.yaml").read_text()
    paths = [configs.run.server.folder, configs.run.server.identity]
    for site in configs.sites.values():
        paths += [site.folder, site.identity]
        for dataset in site.datasets:
            paths += [path for path in (dataset.dicom, dataset.reports, dataset.attributes, dataset.labels) if path]
    assert len(paths) == 2 + 6 + 4 + 3 + 3
    assert all(path.is_relative_to(folder.root) for path in paths)


def test_sites_know_the_coordinators_port_and_the_run_has_the_seed(configs: DemoConfigs) -> None:
    assert configs.run.seed == 5
    assert {site.server for site in configs.sites.values()} == {configs.run.server.listen}
    assert list(configs.sites) == ["central", "mayo", "emory"]


def test_all_else_is_as_in_the_repository(configs: DemoConfigs) -> None:
    original = load(ROOT / "configs/run/demo.yaml", RunSettings)
    assert configs.run.task == original.task
    assert configs.run.schedule == original.schedule
    assert configs.run.text_encoder == original.text_encoder


def test_demo_outside_the_repository_says_where_to_start_it(
    folder: DemoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="start the demo in the repository's root"):
        write_configs(folder, seed=1)


def test_folder_of_an_earlier_demo_is_emptied(tmp_path: Path) -> None:
    claim(tmp_path / "demo")
    (tmp_path / "demo/server/spool").mkdir(parents=True)
    (tmp_path / "demo/report.html").write_text("old")
    (tmp_path / "kept").write_text("mine")
    (tmp_path / "demo/link").symlink_to(tmp_path / "kept")
    folder = claim(tmp_path / "demo")
    assert [path.name for path in folder.root.iterdir()] == [".mammofed-demo"]
    assert (tmp_path / "kept").read_text() == "mine"


def test_folder_that_no_demo_wrote_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigurationError, match="Nothing in it was touched"):
        claim(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def epochs_by_hospital(run: RunSettings) -> dict[str, int]:
    """Epochs of each hospital's exams; those of pooled data count for every hospital."""
    epochs = dict.fromkeys(SITES, 0)
    for visit in visits_of(run):
        for site in SITES if visit.site == POOLED else [visit.site]:
            epochs[site] += visit.epochs
    return epochs


def planned(folder: DemoFolder, configs: DemoConfigs, kind: str) -> tuple[RunSettings, list[SiteSettings]]:
    """The run of a comparison and its sites, read back from the files that `fl-simulate` is given."""
    comparison = next(item for item in plan_comparisons(configs.run) if item.kind == kind)
    files = module.write_sites(folder, configs)
    settings = load(module.write_simulation(folder, configs.run, comparison, files), SimulationSettings)
    assert settings.folder == result_folder(folder, comparison)
    return simulated(
        load(settings.run, RunSettings), [load(path, SiteSettings) for path in settings.sites], settings.folder
    )


def test_pooled_data_is_trained_on_as_often_as_in_the_joint_run(folder: DemoFolder, configs: DemoConfigs) -> None:
    run, _ = planned(folder, configs, POOLED)
    assert epochs_by_hospital(run) == epochs_by_hospital(configs.run) == dict.fromkeys(SITES, 6)


@pytest.mark.parametrize("site", SITES)
def test_hospital_alone_is_trained_on_as_often_as_in_the_joint_run(
    folder: DemoFolder, configs: DemoConfigs, site: str
) -> None:
    run, _ = planned(folder, configs, f"alone-{site}")
    assert epochs_by_hospital(run) == dict.fromkeys(SITES, 0) | {site: 6}


@pytest.mark.parametrize("kind", ["fedavg", POOLED, "alone-mayo"])
def test_comparison_is_evaluated_at_its_end_at_every_hospital(
    folder: DemoFolder, configs: DemoConfigs, kind: str
) -> None:
    run, _ = planned(folder, configs, kind)
    assert run.evaluation.when == "end"
    assert not run.tracking.enabled
    assert run.evaluation_sites == SITES


def test_pooled_site_holds_all_data_sets_where_the_hospitals_prepared_them(
    folder: DemoFolder, configs: DemoConfigs
) -> None:
    run, sites = planned(folder, configs, POOLED)
    pooled = next(site for site in sites if site.site == POOLED)
    assert run.training_sites == (POOLED,)
    assert [dataset.prepared for dataset in pooled.datasets] == [
        site.prepared_folder(dataset) for site in configs.sites.values() for dataset in site.datasets
    ]
    assert len(pooled.datasets) == 4
    # An epoch is three times as long there, so the warm-up takes a third as many.
    assert run.task.optimizer.warmup_epochs == pytest.approx(configs.run.task.optimizer.warmup_epochs / 3)


def test_comparisons_run_on_one_thread_each(folder: DemoFolder, configs: DemoConfigs) -> None:
    _, sites = planned(folder, configs, "fedavg")
    assert {site.worker.threads for site in sites} == {1}


def test_each_hospital_alone_is_trained_with_two_seeds(configs: DemoConfigs) -> None:
    plans = plan_comparisons(configs.run)
    seeds: dict[str, set[int]] = {}
    for item in plans:
        seeds.setdefault(item.kind, set()).add(item.seed)
    assert {kind: len(found) for kind, found in seeds.items() if kind.startswith("alone-")} == {
        "alone-central": 2,
        "alone-mayo": 2,
        "alone-emory": 2,
    }
    assert len({item.name for item in plans}) == len(plans)


def test_names_of_comparisons_are_those_of_folders(configs: DemoConfigs) -> None:
    (fedavg, *_) = plan_comparisons(configs.run)
    assert isinstance(fedavg, Comparison)
    assert fedavg.name == "fedavg-5"
