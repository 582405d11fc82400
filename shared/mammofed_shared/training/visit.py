"""What a worker group does for a training visit: a plan, a state and exams in; an update out. Bit for bit repeatable.

    out/update.safetensors     tensors; leave the site after egress control
    out/metrics.json           numbers, name → value; leave the site after egress control
    out/timing.json            numbers that hang on the clock; leave the site after egress control
    out/spec.json              names, shapes and kinds of the update's tensors; stays at the site
    out/moments.safetensors    AdamW's moments (with `optimizer.state: keep`); never leave the site
    out/control.safetensors    the site's own control variate (SCAFFOLD); never leaves the site, its change does
    kept/checkpoint.safetensors, received.json    where a visit that is cut goes on; never leave the site
    out/privacy.json           what the visit has cost (DP-SGD only); never leaves the site
    kept/noise.secret          what its noise is drawn from (DP-SGD only); never leaves the site
    kept/not-finite.json       numbers of the last steps of a visit that found no finite loss; never leaves the site

On a CPU, equal plan, state, moments, exams, number of processes and of threads give equal bytes, cut or not. So nothing
but ``timing.json`` depends on the clock.
"""

import gc
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mammofed_shared.config.tasks import TASKS, TaskSettings
from mammofed_shared.errors import PayloadError, RefusalCode, VisitFailed
from mammofed_shared.files import write_whole
from mammofed_shared.protocol.payload import Payload, write_payload
from mammofed_shared.protocol.plan import Plan, Progress
from mammofed_shared.protocol.task_spec import TaskSpec
from mammofed_shared.training.dp_sgd_account import ACCOUNT_FILE, SECRET_FILE, DpSgdOrder
from mammofed_shared.training.engine import Engine
from mammofed_shared.training.engine_of import make_engine
from mammofed_shared.training.feature_pass import features_before
from mammofed_shared.training.gradient_term import ControlVariates, GradientTerm, save_own, term_of
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.kept import (
    average_buffers,
    load_moments,
    read_weights,
    restore_position,
    save_checkpoint,
    save_moments,
)
from mammofed_shared.training.loop import Clock, LoopSettings, NotFinite, Position, train_epochs
from mammofed_shared.training.optim import warmup_cosine
from mammofed_shared.training.process import out_of_memory_as_code, peak_memory_gb, prepare_process
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.state import exchanged_arrays, load_arrays, load_state, tensor_specs
from mammofed_shared.training.step import Trainable, accumulate_gradients
from mammofed_shared.training.tasks import code_of

logger = logging.getLogger(__name__)

UPDATE_FILE = "update.safetensors"
METRICS_FILE = "metrics.json"
MOMENTS_FILE = "moments.safetensors"
CONTROL_FILE = "control.safetensors"
TIMING_FILE = "timing.json"
CHECKPOINT_FILE = "checkpoint.safetensors"
RECEIVED_FILE = "received.json"
SPEC_FILE = "spec.json"
NOT_FINITE_FILE = "not-finite.json"
PAUSE_FILE = "pause"
"""In the folder ``kept``: whoever runs the visit wants it to stop after the step in hand."""


def initial_state(settings: TaskSettings, *, text_encoder: Path | None, seed: int, out: Path) -> TaskSpec:
    """Write the run's first weights to ``out`` and say what they are; equal seeds give equal bytes.

    Args:
        text_encoder: folder with the text encoder's configuration, tokenizer and (as the settings say) weights, where
            the task trains one.
    """
    torch.manual_seed(seed)
    model = code_of(settings).build_model(settings, text_encoder, True)
    write_payload(out, exchanged_arrays(model))
    return _spec(settings, model)


def _spec(settings: TaskSettings, model: nn.Module) -> TaskSpec:
    return TaskSpec(task=settings.name, weight_key=TASKS[settings.name].weight_key, tensors=tensor_specs(model))


@dataclass(frozen=True, slots=True)
class VisitFiles:
    """Where one visit reads and writes. ``out`` is thrown away when a visit is cut; ``kept`` is not."""

    state: Path
    moments: Path | None
    """What this site kept of its last visit; None starts with fresh ones."""
    out: Path
    kept: Path
    checkpoint_every_s: float
    control: Path | None = None
    """The site's own control variate after its last visit; None: 0."""


def train_visit(
    plan: Plan,
    files: VisitFiles,
    data: SiteData,
    hardware: Hardware,
    report: Callable[[Progress], None],
    dp_sgd: DpSgdOrder | None = None,
) -> None:
    """Train the plan's epochs and write the update and the moments; goes on from where an earlier call was cut.

    Every process of the worker group calls it; the first one writes.

    Args:
        report: called after each step.
        dp_sgd: how to protect each patient; None: not.

    Raises:
        VisitFailed: with the code of what went wrong; there is no update then.
    """
    prepare_process(plan, data, hardware)
    with out_of_memory_as_code():
        group = WorkerGroup(hardware)
        features_before(plan.task, data, group, report)
        numbers, timing = _train(plan, files, data, group, report, dp_sgd)
        if group.rank > 0:
            return
        numbers |= _validated_update(plan, files, data, group)
    write_whole(files.out / TIMING_FILE, json.dumps(timing))
    write_whole(files.out / METRICS_FILE, json.dumps(numbers, sort_keys=True))


def _train(
    plan: Plan,
    files: VisitFiles,
    data: SiteData,
    group: WorkerGroup,
    report: Callable[[Progress], None],
    dp_sgd: DpSgdOrder | None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Train, write update and moments, and give what is to be told, apart from what hangs on the clock."""
    settings, code = plan.task, code_of(plan.task)
    resumed = _checkpoint_weights(files.kept / CHECKPOINT_FILE)
    model = code.build_model(settings, data.text_encoder, False)
    load_state(model, files.state, has_controls=plan.control_variates)
    model.to(group.device)
    term = term_of(plan, model, files.state, files.control)  # of the model as it came
    received = _validated(files.kept / RECEIVED_FILE, plan, model, data, group)
    is_resumed = resumed is not None
    if resumed is not None:
        load_arrays(model, resumed)
    del resumed  # the weights once more, in each process
    task: Trainable
    if dp_sgd is None:
        task, gradients, account = code.bind(settings, model, data, group), accumulate_gradients, None
    else:
        from mammofed_shared.training.dp_sgd import bind_private  # opacus: a second of every worker's start

        task, private = bind_private(dp_sgd, plan, model, data, group, files.kept / SECRET_FILE)
        gradients, account = private.gradients, private.account
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    engine = make_engine(model, group, settings.optimizer, settings.precision, term)
    position = Position()
    keep = settings.optimizer.state == "keep"
    if is_resumed:
        load_moments(files.kept / CHECKPOINT_FILE, model, shapes, engine)
        position = restore_position(files.kept / CHECKPOINT_FILE, model, engine, group)
        if term is not None:
            with Payload(files.kept / CHECKPOINT_FILE) as payload:
                term.restore(payload)
        logger.info("task %s: goes on after %d steps", plan.task_id, position.num_steps)
    elif keep and files.moments is not None:
        load_moments(files.moments, model, shapes, engine)
    clock = Clock()
    saver = _Saver(files, model, engine, group, term)
    try:
        train_epochs(
            task,
            engine,
            group,
            LoopSettings(settings.precision, group.hardware.micro_batch, settings.optimizer.most_skipped),
            position,
            clock,
            learning_rate_at=_curve(plan),
            epochs=plan.epochs,
            seed=visit_seed(plan),
            report=report,
            save_if_due=saver.save_if_due,
            gradients=gradients,
        )
    except NotFinite as error:
        _dump(files.kept / NOT_FINITE_FILE, error, engine, group)
        raise
    average_buffers(model, group)
    numbers = _numbers(plan, position, group) | task.numbers()
    numbers["moments_reset"] = float(plan.moments_from is not None and (files.moments is None or not keep))
    if keep:
        save_moments(files.out / MOMENTS_FILE, engine, group)
    numbers |= {f"received/{name}": value for name, value in received.items()}
    weights = engine.weights()
    if group.rank == 0:
        if isinstance(term, ControlVariates):
            after = term.after()
            save_own(files.out / CONTROL_FILE, after)
            weights |= term.changes(after)
        if account is not None:
            write_whole(files.out / ACCOUNT_FILE, account.model_dump_json())
        write_payload(files.out / UPDATE_FILE, weights)
        write_whole(files.out / SPEC_FILE, _spec(settings, model).model_dump_json())
        _log_end(numbers, clock)
    return numbers, {
        "data_wait": clock.data_wait,
        "samples_per_s": clock.num_samples / clock.passed_s,
        "peak_memory_gb": peak_memory_gb(group),
    }


def _numbers(plan: Plan, position: Position, group: WorkerGroup) -> dict[str, float]:
    """What the loop has found out; every process of the group calls it."""
    told = {name: group.sum(value) for name, value in sorted(position.told.items())}
    return {
        **position.means(),
        **told,
        "num_steps": float(position.num_steps),
        "num_samples": float(position.num_samples),
        "num_skipped_steps": float(position.num_skipped),
        "learning_rate": position.learning_rate,
        "micro_batch": float(group.hardware.micro_batch or -(-plan.task.batch_size // group.size)),
        "num_processes": float(group.size),
    }


def _validated_update(plan: Plan, files: VisitFiles, data: SiteData, group: WorkerGroup) -> dict[str, float]:
    """This site's figures of the model that it sends; what trained it is gone by now, and its memory with it."""
    gc.collect()
    if group.device.type == "cuda":
        torch.cuda.empty_cache()
    code = code_of(plan.task)
    model = code.build_model(plan.task, data.text_encoder, False)
    load_state(model, files.out / UPDATE_FILE, has_controls=plan.control_variates)
    found = code.validate(plan.task, model.to(group.device), data, group.device)
    return {f"sent/{name}": value for name, value in found.items()}


def _curve(plan: Plan) -> Callable[[float], float]:
    optimizer = plan.task.optimizer
    warmup = optimizer.warmup_epochs / plan.epochs_total

    def learning_rate_at(epochs_done: float) -> float:
        progress = (plan.epochs_before + epochs_done) / plan.epochs_total
        return warmup_cosine(optimizer.learning_rate, progress, warmup)

    return learning_rate_at


class _Saver:
    """Writes the visit's checkpoint when it is due, by the first process's clock."""

    def __init__(
        self, files: VisitFiles, model: nn.Module, engine: Engine, group: WorkerGroup, term: GradientTerm | None
    ) -> None:
        self._files = files
        self._term = term
        self._model = model
        self._engine = engine
        self._group = group
        self._last_s = time.monotonic()

    def save_if_due(self, position: Position) -> None:
        """Called after each step.

        Raises:
            VisitFailed: OUT_OF_HOURS, the site lets the visit pause; the checkpoint is of this very step.
        """
        shall_pause = (self._files.kept / PAUSE_FILE).exists()
        is_due = shall_pause or time.monotonic() - self._last_s >= self._files.checkpoint_every_s
        if not self._group.as_first_says(is_due):
            return
        path = self._files.kept / CHECKPOINT_FILE
        save_checkpoint(path, self._model, self._engine, self._group, position, self._term)
        self._last_s = time.monotonic()
        if self._group.as_first_says(shall_pause):  # and the first has written all by then
            raise VisitFailed(RefusalCode.OUT_OF_HOURS, f"the visit pauses after {position.num_steps} steps")


def _checkpoint_weights(path: Path) -> dict[str, NDArray[Any]] | None:
    """The weights of a visit that was cut; None where there are none, or they cannot be read."""
    if not path.exists():
        return None
    try:
        return read_weights(path)
    except PayloadError as error:
        logger.warning("the checkpoint of a visit that was cut cannot be read (%s); the visit begins anew", error)
        return None


def _validated(path: Path, plan: Plan, model: nn.Module, data: SiteData, group: WorkerGroup) -> dict[str, float]:
    """This site's figures of the model that it received, found once however often the visit is cut."""
    if group.rank == 0 and not path.exists():
        write_whole(path, json.dumps(code_of(plan.task).validate(plan.task, model, data, group.device)))
    group.wait_for_all()
    found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _dump(path: Path, error: NotFinite, engine: Engine, group: WorkerGroup) -> None:
    """Tell the steps that failed and the size of every tensor, in numbers: no image, no text."""
    weights = engine.weights()
    if group.rank > 0:
        return
    sizes = {
        name: {
            "norm": repr(float(np.linalg.norm(array.astype(np.float64)))),
            "num_not_finite": int((~np.isfinite(array)).sum()),
        }
        for name, array in weights.items()
    }
    steps = [{name: repr(value) for name, value in step.items()} for step in error.steps]
    write_whole(path, json.dumps({"steps": steps, "tensors": sizes}, indent=1), mode=0o600)


def _log_end(numbers: Mapping[str, float], clock: Clock) -> None:
    logger.info(
        "%d steps, %d of them skipped, %.1f samples/s; %.1f %% of the time waited for data",
        numbers["num_steps"],
        numbers["num_skipped_steps"],
        clock.num_samples / clock.passed_s,
        100 * clock.data_wait,
    )


def visit_seed(plan: Plan) -> int:
    """Seed of one visit, 0..2**63 - 1: the same after a kill, another for every other visit."""
    digest = hashlib.sha256(f"{plan.seed}/{plan.task_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
