"""``site-client features``: what features of the frozen model are kept here, and computing them ahead of a visit.

This file is light: the worker group of a visit does the work (feature_order.py).
"""

import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mammofed_shared.config.features import FeatureKind, ReadsFeatures, kind_named
from mammofed_shared.config.frozen_encoder import encoder_digest
from mammofed_shared.config.loading import load
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.config.tasks import TaskSettings
from mammofed_shared.data.feature_store import kept_bytes, read_about
from mammofed_shared.errors import ConfigurationError, DataError, RefusalCode, VisitFailed
from mammofed_shared.files import write_whole
from mammofed_shared.training.feature_figures import FEATURES_FILE, WAYS_OUT, FeatureFigures
from mammofed_site.feature_order import ORDER_FILE, FeatureOrder
from mammofed_site.plan_command import last_plan
from mammofed_site.prediction import in_words
from mammofed_site.progress_bar import visit_shown
from mammofed_site.visit import CACHES_FOLDER, Monitor, run_group


def features_site(
    settings: SiteSettings, kind: str | None, run: Path | None, console: Console, *, predict: bool
) -> None:
    """Tell what features take here, and compute and keep those that are missing.

    Args:
        kind: of features of all exams, by its name; None: those that the run's task reads.
        run: the lead's file; None: as the last plan that came here.
        predict: only tell.

    Raises:
        ConfigurationError: this site names no frozen model, the task reads no features, or they exceed the quota.
        DataError: data are not prepared, or images cannot be read.
    """
    if settings.encoder is None:
        raise ConfigurationError("encoder: missing; name the folder of the frozen model in this site's YAML")
    wanted, task = _wanted(settings, kind, run)
    encoder = encoder_digest(settings.encoder)
    order = _order(settings, settings.encoder, wanted, task)
    found = _figures(settings, order)
    console.print(_table(found, settings))
    for folder, size in kept_bytes(settings.folder / CACHES_FOLDER).items():
        console.print(f"{folder}: {size / 1e9:.3g} GB{_whose(folder, encoder)}", markup=False, soft_wrap=True)
    if predict:
        return
    if found.exceeds(settings.features.quota_gb):
        words = found.in_words(settings.features.quota_gb)
        if settings.features.over_quota == "refuse":
            raise ConfigurationError(f"{words}. {WAYS_OUT}")
        console.print(f"{words}: nothing is kept, each epoch computes them anew", markup=False, soft_wrap=True)
    elif found.num_missing:
        monitor = Monitor()
        with visit_shown(monitor, f"features {wanted.slug}", console):
            _run(settings, order, settings.worker.processes, monitor)
        console.print(f"{found.num_missing} computed and kept", markup=False)


def _wanted(settings: SiteSettings, kind: str | None, run: Path | None) -> tuple[FeatureKind, TaskSettings | None]:
    if kind is not None:
        try:
            return kind_named(kind), None
        except ValueError as error:
            raise ConfigurationError(f"--kind: {error}") from error
    task = load(run, RunSettings).task if run is not None else last_plan(settings).task
    if not isinstance(task, ReadsFeatures):
        raise ConfigurationError(f"the task {task.name!r} reads pixels: there are no features to compute")
    return task.features, task


def _order(settings: SiteSettings, encoder: Path, kind: FeatureKind, task: TaskSettings | None) -> FeatureOrder:
    return FeatureOrder(
        kind=kind,
        task=task,
        is_prediction=False,
        datasets=tuple((dataset.name, settings.prepared_folder(dataset)) for dataset in settings.datasets),
        encoder=encoder,
        preprocessing=settings.preprocessing.digest,
        features=settings.features,
        worker=settings.worker,
        caches=settings.folder / CACHES_FOLDER,
        log_file=settings.folder / "worker.log",
    )


def _figures(settings: SiteSettings, order: FeatureOrder) -> FeatureFigures:
    content = _run(settings, order.model_copy(update={"is_prediction": True}), 1, Monitor())
    return FeatureFigures.model_validate_json(content)


def _run(settings: SiteSettings, order: FeatureOrder, processes: int, monitor: Monitor) -> str:
    """Let a worker group do it; what it has written, if anything."""
    folder = settings.folder / "feature-pass"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        write_whole(folder / ORDER_FILE, order.model_dump_json())
        run_group(folder, processes, monitor)
        written = folder / FEATURES_FILE
        return written.read_text(encoding="utf-8") if written.exists() else ""
    except VisitFailed as error:
        kind = DataError if error.code in (RefusalCode.NO_DATA, RefusalCode.PREPROCESSING_MISMATCH) else None
        raise (kind or ConfigurationError)(
            f"features were not computed ({error.code.name}): {order.log_file} says why. What was computed before it "
            "is kept"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _table(found: FeatureFigures, settings: SiteSettings) -> Table:
    table = Table(title=f"features at {settings.site}", show_header=False)
    item = "a pair of images" if found.kind.kind == "asymmetry" else "an image"
    rows = {
        "kind": f"{found.kind.slug}: {' × '.join(map(str, found.row_shape))} values of {item}",
        "kept": f"{found.num_items - found.num_missing} of {found.num_items}",
        "to compute": _to_compute(found, settings.worker.processes),
        "quota": f"{(found.bytes_all + found.bytes_others) / 1e9:.3g} of {settings.features.quota_gb:g} GB, all kept",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _to_compute(found: FeatureFigures, processes: int) -> str:
    if not found.num_missing:
        return "nothing"
    return f"{found.bytes_missing / 1e9:.3g} GB in about {in_words(found.compute_s(processes))}"


def _whose(folder: Path, encoder: str) -> str:
    about = read_about(folder)
    is_ours = about is not None and about.identity.encoder == encoder
    return "" if is_ours else ", not of the model that `encoder` names: no run with it needs this"
