"""Gathers what the demo's runs have left on disk into one record."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from mammofed_server.run_state import RunState
from mammofed_shared.data.manifest import read_exams
from mammofed_simulation.demo.baselines import baseline_scores
from mammofed_simulation.demo.comparisons import FEDAVG_ROUNDS, POOLED, Comparison, result_folder
from mammofed_simulation.demo.configuration import DemoConfigs
from mammofed_simulation.demo.folder import DemoFolder
from mammofed_simulation.demo.population import departure_of, populations_of
from mammofed_simulation.demo.results import Entry, Interruption, Results, SeededRun, check_bar
from mammofed_simulation.demo.scores import aurocs, curve, last_of


def gather(
    folder: DemoFolder,
    configs: DemoConfigs,
    comparisons: Sequence[Comparison],
    interruption: Interruption | None,
    minutes: Mapping[str, float],
) -> Results:
    """All numbers of a demo whose runs have ended.

    Raises:
        DataError: a run was not evaluated at every site.
    """
    sites = configs.run.sites
    run = RunState.open(folder.server)
    last = run.manifest(run.last_turn())
    assert last.text_encoder is not None, "the demo pretrains"
    points = curve(run, folder.sites, sites)
    entries = _entries(
        folder, configs, comparisons, SeededRun(seed=configs.run.seed, num_steps=0, auroc=points[0].auroc)
    )
    fedavg = next(entry for entry in entries if entry.kind == "fedavg")
    return Results(
        seed=configs.run.seed,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        code=last.code,
        model_sha256=last.state.digest,
        num_values=last.spec.num_values,
        text_encoder=last.text_encoder,
        minutes=minutes,
        sites=sites,
        points=points,
        entries=entries,
        checks=check_bar(points, fedavg, sites),
        populations=tuple(item for site in configs.sites.values() for item in populations_of(site)),
        departures=tuple(departure_of(site, settings.folder) for site, settings in configs.sites.items()),
        interruption=interruption,
        mlflow=configs.run.tracking.mlflow or f"sqlite:///{folder.server / 'mlflow.db'}",
    )


def _entries(
    folder: DemoFolder, configs: DemoConfigs, comparisons: Sequence[Comparison], untrained: SeededRun
) -> tuple[Entry, ...]:
    sites = configs.run.sites
    by_kind: dict[str, list[SeededRun]] = {"joint": [last_of(folder.server, sites, folder.sites)]}
    for item in comparisons:
        result = result_folder(folder, item)
        by_kind.setdefault(item.kind, []).append(last_of(result / "server", sites, result / "sites"))
    rows = [
        ("joint", "joint", f"{configs.run.schedule.rounds} rounds of one visit at each hospital, over mutual TLS."),
        ("fedavg", "FedAvg", f"{FEDAVG_ROUNDS} rounds; every hospital trains an epoch, then their mean by exams."),
        (POOLED, "pooled data", "One imagined place with all hospitals' exams and as many steps; no federation."),
        *(
            (f"alone-{site}", f"{site} alone", f"{site}'s own exams only, for as many epochs as in the joint run.")
            for site in sites
        ),
    ]
    trained = [Entry(kind=kind, label=label, how=how, runs=tuple(by_kind[kind])) for kind, label, how in rows]
    return (
        *trained,
        Entry(kind="untrained", label="untrained", how="The joint run's first weights.", runs=(untrained,)),
        _baseline(configs),
    )


def _baseline(configs: DemoConfigs) -> Entry:
    scores = {
        site: baseline_scores(
            read_exams([(dataset.name, settings.prepared_folder(dataset)) for dataset in settings.datasets])
        )
        for site, settings in configs.sites.items()
    }
    return Entry(
        kind="baseline",
        label="brightness only",
        how="No learning: maximum of the blurred image for masses, of the high-pass image for calcifications.",
        runs=(SeededRun(seed=None, num_steps=0, auroc=aurocs(scores)),),
    )
