"""Ten steps of a visit with random weights on a site's own data and hardware: what `site-client plan` predicts from.

    out/probe.json                  ProbeFigures; never leaves the site
    kept/checkpoint.safetensors     written to time it, and removed

The loop, the worker group and the readers are those of a visit, so a probe fails as the visit would.
"""

import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from mammofed_shared.config.features import ReadsFeatures
from mammofed_shared.config.tasks import TaskSettings
from mammofed_shared.evaluation.choice import fixed_choice
from mammofed_shared.exam import Split
from mammofed_shared.files import write_whole
from mammofed_shared.protocol.plan import Plan, Progress
from mammofed_shared.training.engine import Engine
from mammofed_shared.training.engine_of import make_engine
from mammofed_shared.training.feature_figures import FeatureFigures
from mammofed_shared.training.feature_pass import figures_of
from mammofed_shared.training.gradient_term import term_of
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.kept import save_checkpoint
from mammofed_shared.training.loop import Clock, LoopSettings, Position, train_epochs
from mammofed_shared.training.probe_figures import FIGURES_FILE, ProbeFigures
from mammofed_shared.training.process import out_of_memory_as_code, peak_memory_gb, prepare_process
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.state import exchanged_arrays
from mammofed_shared.training.step import Trainable
from mammofed_shared.training.tasks import TaskCode, code_of
from mammofed_shared.training.visit import CHECKPOINT_FILE

TIMED_STEPS = 10
_WARM_UP_STEPS = 3
_VALIDATED_EXAMS = 8


def probe_visit(
    plan: Plan,
    out: Path,
    kept: Path,
    data: SiteData,
    hardware: Hardware,
    report: Callable[[Progress], None],
    began_s: float,
) -> None:
    """Measure what a visit of the plan would take here. Every process of the group calls it; the first one writes.

    Args:
        out, kept: folders, as in ``VisitFiles``.
        report: called after each step.
        began_s: when this process began, by ``time.monotonic``; it has read the exams since.

    Raises:
        VisitFailed: as ``train_visit``; OUT_OF_MEMORY, where the visit would run out of it, too.
    """
    prepare_process(plan, data, hardware)
    with out_of_memory_as_code():
        _probe(plan, out, kept, data, hardware, report, began_s)


def _probe(
    plan: Plan,
    out: Path,
    kept: Path,
    data: SiteData,
    hardware: Hardware,
    report: Callable[[Progress], None],
    began_s: float,
) -> None:
    settings, code = plan.task, code_of(plan.task)
    group = WorkerGroup(hardware)
    model = code.build_model(settings, data.text_encoder, False).to(group.device)
    task = code.bind(settings, model, data, group)
    term = term_of(plan, model, None, None)
    engine = make_engine(model, group, settings.optimizer, settings.precision, term)
    start_s = time.monotonic() - began_s
    # Enough to use up what the readers have read ahead of the clock.
    num_warm_up = max(_WARM_UP_STEPS, data.loaders + 2)
    marks = _stepped(task, engine, group, settings, hardware, num_warm_up, report)
    step_s = np.diff(marks.times_s)[num_warm_up:].tolist()
    began_s = time.monotonic()
    save_checkpoint(kept / CHECKPOINT_FILE, model, engine, group, marks.position, term)
    checkpoint_s = time.monotonic() - began_s
    own = torch.tensor([[peak_memory_gb(group), marks.waited_s[-1] - marks.waited_s[num_warm_up]]])
    peaks, waits = group.gather_rows(own.to(group.device), [1] * group.size).cpu().unbind(1)
    if group.rank > 0:
        return
    num_steps = task.num_steps
    del engine, task, model, term  # as a visit makes room for the model that is validated
    gc.collect()
    if group.device.type == "cuda":
        torch.cuda.empty_cache()
    began_s = time.monotonic()
    fresh = code.build_model(settings, data.text_encoder, False).to(group.device)
    model_s = time.monotonic() - began_s
    validation_s = _validation_s(code, settings, fresh, data, group.device)
    features = _feature_figures(settings, data, group)
    arrays = exchanged_arrays(fresh)
    keeps_moments = settings.optimizer.state == "keep"
    figures = ProbeFigures(
        device=torch.cuda.get_device_name(group.device) if group.device.type == "cuda" else "CPU",
        is_gpu=group.device.type == "cuda",
        memory_gb=_memory_gb(group.device),
        peak_memory_gb=(max(float(peaks[0]), peak_memory_gb(group)), *peaks[1:].tolist()),
        micro_batch=hardware.micro_batch or -(-settings.batch_size // group.size),
        num_steps=num_steps,
        num_samples=marks.samples[-1] - marks.samples[num_warm_up],
        step_s=tuple(step_s),
        wait_s=float(waits.max()),
        warm_up_s=max(marks.times_s[num_warm_up] - marks.times_s[0] - num_warm_up * float(np.median(step_s)), 0.0),
        start_s=start_s,
        model_s=model_s,
        checkpoint_s=checkpoint_s,
        validation_s=validation_s,
        features=features,
        weights_bytes=sum(array.nbytes for array in arrays.values()),
        moments_bytes=2 * sum(parameter.numel() * 4 for parameter in fresh.parameters()) * keeps_moments,
        checkpoint_bytes=(kept / CHECKPOINT_FILE).stat().st_size,
    )
    (kept / CHECKPOINT_FILE).unlink()
    write_whole(out / FIGURES_FILE, figures.model_dump_json())


@dataclass(slots=True)
class _Marks:
    """Time, seconds waited for data and samples at the start and after each step."""

    clock: Clock = field(default_factory=Clock)
    position: Position = field(default_factory=Position)
    times_s: list[float] = field(default_factory=list)
    waited_s: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)

    def note(self) -> None:
        self.times_s.append(time.monotonic())
        self.waited_s.append(self.clock.waited_s)
        self.samples.append(self.clock.num_samples)


class _Enough(Exception):
    """All steps of the probe are done."""


def _stepped(
    task: Trainable,
    engine: Engine,
    group: WorkerGroup,
    settings: TaskSettings,
    hardware: Hardware,
    num_warm_up: int,
    report: Callable[[Progress], None],
) -> _Marks:
    """Steps of the visit's own loop, as many epochs as they take."""
    marks = _Marks()
    wanted = num_warm_up + TIMED_STEPS

    def step_done(position: Position) -> None:
        marks.note()
        if position.num_steps == wanted:
            raise _Enough

    marks.note()
    with suppress(_Enough):
        train_epochs(
            task,
            engine,
            group,
            # A step that is skipped takes as long; only a visit shall end for it.
            LoopSettings(settings.precision, hardware.micro_batch, most_skipped=wanted + 1),
            marks.position,
            marks.clock,
            learning_rate_at=lambda epochs_done: settings.optimizer.learning_rate,
            epochs=-(-wanted // task.num_steps),
            seed=0,
            report=lambda progress: report(progress.model_copy(update={"num_steps": wanted})),
            save_if_due=step_done,
        )
    return marks


def _validation_s(
    code: TaskCode, settings: TaskSettings, model: torch.nn.Module, data: SiteData, device: torch.device
) -> float:
    """Seconds of one validation of this site, from that of one exam and that of a few."""
    known = fixed_choice([exam for exam in data.exams if exam.split is Split.VALIDATION], settings.validation_exams)
    if not known:
        return 0.0

    def timed(count: int) -> float:
        began_s = time.monotonic()
        # Few patients are told nothing of; measured is the time that telling takes.
        code.validate(settings, model, replace(data, exams=known[:count], least_cell=1), device)
        return time.monotonic() - began_s

    timed(1)  # first touch
    few = min(len(known), _VALIDATED_EXAMS)
    one, some = timed(1), timed(few)
    return one + (len(known) - 1) * max(some - one, 0.0) / max(few - 1, 1)


def _feature_figures(settings: TaskSettings, data: SiteData, group: WorkerGroup) -> FeatureFigures | None:
    if not isinstance(settings, ReadsFeatures):
        return None
    return figures_of(settings.features, data, group, code_of(settings).feature_exams(settings, data.exams))


def _memory_gb(device: torch.device) -> float:
    """All memory of the GPU; else of the machine, or what a container may use of it."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 1e9
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        most = min(most, int(text))
    return most / 1e9
