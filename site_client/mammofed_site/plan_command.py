"""``site-client plan``: ten steps in this site's own worker group, and what a visit will need by them.

<site folder>/probe/             the order and the figures, while it runs
<site folder>/prediction.json    what was predicted (prediction.py)
"""

import shutil
from pathlib import Path

from rich.console import Console

from mammofed_shared.config.brought_models import IN_WORDS, digest_of
from mammofed_shared.config.loading import load
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.config.tasks import TASKS, Model
from mammofed_shared.errors import ConfigurationError, DataError, RefusalCode, Refused, VisitFailed
from mammofed_shared.protocol.plan import PayloadReference, Plan
from mammofed_shared.training.probe_figures import FIGURES_FILE, ProbeFigures
from mammofed_site.forecast import Forecast, forecast, forecast_table, predict
from mammofed_site.policy import permit
from mammofed_site.policy_file import policy_in_force
from mammofed_site.prediction import keep_prediction, last_outcome
from mammofed_site.visit import Monitor, VisitOrder, do_order, make_order

_ABOUT_DATA = {RefusalCode.NO_DATA, RefusalCode.PREPROCESSING_MISMATCH, RefusalCode.DISK_FULL}


def plan_site(settings: SiteSettings, run: Path | None, console: Console, *, as_json: bool) -> None:
    """Predict a visit, keep the prediction, and print it.

    Args:
        run: the lead's file; None: as the last plan that came here.

    Raises:
        ConfigurationError: there is no plan, or this site or its workers cannot do it.
        DataError: data are not prepared for it.
    """
    plan = last_plan(settings) if run is None else plan_of_run(settings, run)
    with Console(stderr=True).status(f"ten steps of run {plan.run} with this site's exams; Ctrl-C ends them"):
        found = probe_site(settings, plan)
    if as_json:
        print(found.model_dump_json(indent=1))
        return
    console.print(forecast_table(found))
    for warning in found.warnings:
        console.print("[yellow]warning[/yellow]:", end=" ")
        console.print(warning, markup=False, soft_wrap=True)


def probe_site(settings: SiteSettings, plan: Plan) -> Forecast:
    """Do ten steps of a plan, keep the prediction, and give it with all else."""
    try:
        settings = policy_in_force(settings).settings
        permit(plan, settings)
        figures = _probe(settings, plan)
    except (Refused, VisitFailed) as error:
        kind = DataError if error.code in _ABOUT_DATA else ConfigurationError
        raise kind(f"this site cannot do a visit of run {plan.run}: {error}") from error
    prediction = predict(figures, plan, settings)
    last = last_outcome(settings, plan)
    keep_prediction(settings, plan, prediction)
    free = shutil.disk_usage(settings.folder).free
    return forecast(figures, prediction, plan, settings, disk_free=free, last=last)


def plan_of_run(settings: SiteSettings, path: Path) -> Plan:
    """A visit as the lead's file will ask this site for it."""
    run = load(path, RunSettings)
    own = [
        (epochs, phase)
        for phase in run.schedule.each_phase
        for site, epochs in phase.visits(run.sites, run.sites)
        if site == settings.site
    ]
    if not own:
        raise ConfigurationError(f"{path}: {settings.site} does not train in this run: {', '.join(run.training_sites)}")
    return _as_asked(
        settings,
        max(epochs for epochs, _ in own),
        run=run.run,
        task=run.task,
        preprocessing=run.preprocessing.digest,
        **{model: _digest(model, run, settings) for model in TASKS[run.task.name].needs},
        configuration=run.digest,
        rounds_total=run.schedule.rounds,
        num_sites=min(len(phase.visits(run.sites, run.sites)) if phase.kind == "fedavg" else 1 for _, phase in own),
        proximal_mu=max(phase.proximal_mu for _, phase in own),
        control_variates=any(phase.has_controls for _, phase in own),
    )


def _digest(model: Model, run: RunSettings, settings: SiteSettings) -> str:
    """The lead's folder may not be here; then the site's own stands for it, until the plan that comes names its
    digest."""
    lead, own = getattr(run, model), getattr(settings, model)
    folder = lead if lead.is_dir() else own
    if folder is None:
        raise ConfigurationError(
            f"{model}: the run needs a {IN_WORDS[model]}, and {lead} is not here: name its folder in this site's YAML"
        )
    return digest_of(model, folder)


def last_plan(settings: SiteSettings) -> Plan:
    """A visit like the one that was last asked of this site.

    Raises:
        ConfigurationError: nothing was asked yet.
    """
    orders = [order for _, order in sorted(_orders(settings), key=lambda pair: pair[0], reverse=True)]
    if not orders:
        raise ConfigurationError(
            "no plan has come to this site yet: give the lead's file with --run, such as --run configs/run/paper.yaml"
        )
    plan = orders[0].plan
    trained = [order.plan.epochs for order in orders if order.plan.kind == "train" and order.plan.run == plan.run]
    epochs = trained[0] if trained else 1
    kept = {"run", "task", "preprocessing", "text_encoder", "encoder", "configuration"}
    kept |= {"rounds_total", "num_sites", "proximal_mu", "control_variates"}
    return _as_asked(settings, epochs, **{name: getattr(plan, name) for name in kept})


def _orders(settings: SiteSettings) -> list[tuple[float, VisitOrder]]:
    found = []
    for path in (settings.folder / "visits").glob("*/visit.json"):
        try:
            found.append((path.stat().st_mtime, VisitOrder.model_validate_json(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError):  # another version of this software wrote it
            continue
    return found


def _as_asked(settings: SiteSettings, epochs: int, **of_the_run: object) -> Plan:
    return Plan.model_validate(
        {
            "task_id": f"probe/r0000/v00000/{settings.site}/train",
            "round": 0,
            "visit": 0,
            "site": settings.site,
            "kind": "train",
            "epochs": epochs,
            "epochs_before": 0,
            "epochs_total": epochs,
            "seed": 0,
            "state": PayloadReference(digest="0" * 64, size=0),  # none comes; a probe draws its weights
            **of_the_run,
        }
    )


def _probe(settings: SiteSettings, plan: Plan) -> ProbeFigures:
    folder = settings.folder / "probe"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        result = do_order(settings, folder, make_order(settings, plan, None, is_probe=True), Monitor())
        return ProbeFigures.model_validate_json((result / FIGURES_FILE).read_text(encoding="utf-8"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
