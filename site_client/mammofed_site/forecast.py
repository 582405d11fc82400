"""What a visit will need, computed from a probe's figures: memory, time, disk, and what to do where it will not fit."""

import os
from statistics import median

from rich.table import Table

from mammofed_shared.config.base import Settings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.training.feature_figures import WAYS_OUT, FeatureFigures
from mammofed_shared.training.probe_figures import ProbeFigures
from mammofed_site.prediction import Outcome, Prediction, in_words

MOST_DATA_WAIT = 0.05
MOST_MEMORY = 0.9
"""Share of the memory that a visit may take: longer reports than the probe has met take more."""


class Forecast(Settings):
    """What `site-client plan` tells; with ``--json``, as it stands here. Memory and disk in GB (10⁹ bytes)."""

    site: str
    run: str
    task: str
    device: str
    processes: int
    distribution: str
    precision: str
    compile: bool
    batch_size: int
    micro_batch: int
    """Most samples that one process computes at once."""
    peak_memory_gb: float
    """Of the GPU that needs most; of all processes together where there is none."""
    memory_gb: float
    step_s: float
    step_s_low: float
    step_s_high: float
    """Median, first and last decile."""
    samples_per_s: float
    data_wait: float
    """Share of the time, 0 to 1, in which a step waits for data."""
    steps_per_epoch: int
    epochs: int
    validation_s: float
    """Of the two validations of a visit together."""
    checkpoint_s: float
    visit_h: float
    visit_h_low: float
    visit_h_high: float
    features: FeatureFigures | None = None
    """What the task reads of the frozen model. Those that are not kept are part of the next visit."""
    disk_gb: float
    """Features that are not kept, the state that comes, the update that leaves, moments before and after, and a
    checkpoint while the next is written."""
    disk_free_gb: float
    last_visit: Outcome | None
    warnings: tuple[str, ...]


def predict(figures: ProbeFigures, plan: Plan, settings: SiteSettings) -> Prediction:
    """Seconds of a visit without the way of the weights over the network."""
    low_s, high_s = _deciles(figures.step_s)
    mean_s = sum(figures.step_s) / len(figures.step_s)
    every_s = 60 * settings.worker.checkpoint_every_min

    def epoch_s(step_s: float) -> float:
        saving = figures.checkpoint_s / every_s if every_s else figures.checkpoint_s / step_s
        return figures.num_steps * step_s * (1 + saving)

    # The model is made anew to be validated before it leaves; update and moments are written as a checkpoint is.
    once_s = figures.start_s + figures.warm_up_s + figures.model_s + 2 * figures.validation_s + figures.checkpoint_s
    features_s = figures.features.compute_s(settings.worker.processes) if figures.features else 0.0
    again_s = features_s if _are_computed_anew(figures.features, settings) else 0.0
    return Prediction(
        once_s=once_s + features_s - again_s,
        epoch_s=epoch_s(mean_s) + again_s,
        quick_epoch_s=epoch_s(low_s) + again_s,
        slow_epoch_s=epoch_s(high_s) + again_s,
    )


def _are_computed_anew(features: FeatureFigures | None, settings: SiteSettings) -> bool:
    """Whether this site computes features whenever they are read, because it has no room to keep them."""
    wanted = settings.features
    return features is not None and wanted.over_quota == "recompute" and features.exceeds(wanted.quota_gb)


def forecast(
    figures: ProbeFigures,
    prediction: Prediction,
    plan: Plan,
    settings: SiteSettings,
    *,
    disk_free: int,
    last: Outcome | None,
) -> Forecast:
    """All that the site is told, with a warning for what will not fit or runs slower than it could.

    Args:
        disk_free: bytes, where the site's folder is.
        last: of the last visit with these settings.
    """
    low_s, high_s = _deciles(figures.step_s)
    quick_s, slow_s = prediction.range_s(plan.epochs)
    disk = 2 * (figures.weights_bytes + figures.moments_bytes + figures.checkpoint_bytes)
    if figures.features and not _are_computed_anew(figures.features, settings):
        disk += figures.features.bytes_missing
    peak_gb = max(figures.peak_memory_gb) if figures.is_gpu else sum(figures.peak_memory_gb)
    data_wait = figures.wait_s / sum(figures.step_s)
    found = Forecast(
        site=plan.site,
        run=plan.run,
        task=plan.task.name,
        device=figures.device,
        processes=settings.worker.processes,
        distribution=settings.worker.distribution,
        precision=plan.task.precision,
        compile=settings.worker.compile,
        batch_size=plan.task.batch_size,
        micro_batch=figures.micro_batch,
        peak_memory_gb=peak_gb,
        memory_gb=figures.memory_gb,
        step_s=median(figures.step_s),
        step_s_low=low_s,
        step_s_high=high_s,
        samples_per_s=figures.num_samples / sum(figures.step_s),
        data_wait=data_wait,
        steps_per_epoch=figures.num_steps,
        epochs=plan.epochs,
        validation_s=2 * figures.validation_s,
        checkpoint_s=figures.checkpoint_s,
        visit_h=prediction.visit_s(plan.epochs) / 3600,
        visit_h_low=quick_s / 3600,
        visit_h_high=slow_s / 3600,
        features=figures.features,
        disk_gb=disk / 1e9,
        disk_free_gb=disk_free / 1e9,
        last_visit=last,
        warnings=(),
    )
    return found.model_copy(update={"warnings": tuple(_warnings(found, settings))})


def forecast_table(found: Forecast) -> Table:
    """The forecast to read on a terminal."""
    table = Table(title=f"a visit of run {found.run} (task {found.task}) at {found.site}", show_header=False)
    each = "each" if found.processes > 1 else "one process"
    compiled = ", compiled" if found.compile else ""
    hardware = f"{found.processes} × {found.device}, {found.distribution}" if found.processes > 1 else found.device
    rows = {
        "hardware": f"{hardware}, {found.precision}{compiled}",
        "batch": f"{found.batch_size} samples, at most {found.micro_batch} at once in {each}",
        "memory": f"{found.peak_memory_gb:.1f} of {found.memory_gb:.1f} GB",
        "step": f"{found.step_s:.3g} s ({found.step_s_low:.3g}–{found.step_s_high:.3g}), "
        f"{found.samples_per_s:.3g} samples/s",
        "waiting for data": f"{100 * found.data_wait:.1f} % of a step",
        "epoch": f"{found.steps_per_epoch} steps",
        "validation": in_words(found.validation_s) if found.validation_s else "no exams in the split validation",
        "checkpoint": f"{in_words(found.checkpoint_s)} to write",
        "features": _features_in_words(found.features, found.processes),
        "disk": f"{found.disk_gb:.2g} GB needed, {found.disk_free_gb:.0f} GB free",
        "visit": f"{in_words(3600 * found.visit_h)} ({in_words(3600 * found.visit_h_low)} – "
        f"{in_words(3600 * found.visit_h_high)}) for {found.epochs} epoch{'s' if found.epochs > 1 else ''}, "
        "without the way of the weights over the network",
        "last visit": str(found.last_visit) if found.last_visit else "none with these settings was predicted",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _features_in_words(features: FeatureFigures | None, processes: int) -> str:
    if features is None:
        return "none, the task reads pixels"
    if not features.num_missing:
        return f"{features.kind.slug}: all {features.num_items} are kept"
    return (
        f"{features.kind.slug}: {features.num_missing} of {features.num_items} to compute once, "
        f"{features.bytes_missing / 1e9:.3g} GB, {in_words(features.compute_s(processes))}: with the next visit, or "
        "ahead of it by `site-client features`"
    )


def _warnings(found: Forecast, settings: SiteSettings) -> list[str]:
    worker, warnings = settings.worker, []
    asked = worker.micro_batch or -(-found.batch_size // worker.processes)
    if found.micro_batch < asked:
        warnings.append(
            f"memory ran out with {asked} samples at once: each process computes {found.micro_batch}, and the batch of "
            f"{found.batch_size} stays whole. Visits begin with {found.micro_batch} (micro-batch.json)"
        )
    if found.peak_memory_gb > MOST_MEMORY * found.memory_gb:
        warnings.append(
            f"memory: {found.peak_memory_gb:.1f} of {found.memory_gb:.1f} GB leaves no room for longer reports: set "
            f"worker.micro_batch to {max(found.micro_batch // 2, 1)}"
        )
    if found.data_wait > MOST_DATA_WAIT:
        warnings.append(
            f"steps wait for data {100 * found.data_wait:.0f} % of the time: raise worker.loaders, now "
            f"{worker.loaders} for each of {worker.processes} process(es); this machine has {os.cpu_count()} CPU cores"
        )
    if found.features is not None and found.features.exceeds(settings.features.quota_gb):
        words = found.features.in_words(settings.features.quota_gb)
        if settings.features.over_quota == "refuse":
            warnings.append(f"{words}: the visit would be refused. {WAYS_OUT}")
        else:
            warnings.append(f"{words}: each epoch computes them anew")
    if found.disk_gb > found.disk_free_gb:
        warnings.append(
            f"disk: a visit needs {found.disk_gb:.1f} GB, {found.disk_free_gb:.1f} GB are free in the site's folder: "
            "make room, or set `folder` to a larger disk"
        )
    return warnings


def _deciles(values: tuple[float, ...]) -> tuple[float, float]:
    """What a tenth of the values is below, and a tenth above; between neighbours by proportion."""
    ordered = sorted(values)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        below = int(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (place - below) * (ordered[above] - ordered[below])

    return at(0.1), at(0.9)
