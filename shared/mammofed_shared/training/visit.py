"""What a worker process does for one visit: a plan, a state and exams in; an update out. Bit for bit repeatable.

    out/update.safetensors     tensors (training only); leave the site after egress control
    out/metrics.json           numbers, name → value; leave the site after egress control
    out/moments.safetensors    AdamW's moments (training with `optimizer.state: keep`); never leave the site
    out/scores.csv             score of each exam (evaluation); never leaves the site

On a CPU, equal plan, state, moments, exams and number of threads give equal bytes. So nothing here depends on the
clock, and durations are measured by whoever starts the worker.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import torch

from mammofed_shared.config.tasks import TASKS, TaskSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.evaluation.zero_shot import ExamScore
from mammofed_shared.exam import Exam
from mammofed_shared.files import write_whole
from mammofed_shared.protocol.payload import write_payload
from mammofed_shared.protocol.plan import Plan, Progress
from mammofed_shared.protocol.task_spec import TaskSpec
from mammofed_shared.training.optim import load_moments, make_adamw, save_moments, warmup_cosine
from mammofed_shared.training.state import exchanged_arrays, load_state, tensor_specs
from mammofed_shared.training.step import LoopSettings, train_epochs
from mammofed_shared.training.tasks import code_of

UPDATE_FILE = "update.safetensors"
METRICS_FILE = "metrics.json"
MOMENTS_FILE = "moments.safetensors"
SCORES_FILE = "scores.csv"


def initial_state(settings: TaskSettings, *, text_encoder: Path, seed: int, out: Path) -> TaskSpec:
    """Write the run's first weights to ``out`` and say what they are; equal seeds give equal bytes.

    Args:
        text_encoder: folder with the text encoder's configuration, tokenizer and (as the settings say) weights.
    """
    torch.manual_seed(seed)
    model = code_of(settings).build_model(settings, text_encoder, True)
    write_payload(out, exchanged_arrays(model))
    return TaskSpec(task=settings.name, weight_key=TASKS[settings.name].weight_key, tensors=tensor_specs(model))


def train_visit(
    plan: Plan,
    *,
    state: Path,
    moments: Path | None,
    exams: Sequence[Exam],
    text_encoder: Path,
    device: str,
    threads: int,
    out: Path,
    report: Callable[[Progress], None],
) -> None:
    """Train the plan's epochs from ``state`` and write the update and the moments to the folder ``out``.

    Args:
        moments: what this site kept of its last visit; None starts with fresh ones.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: of the CPU; part of what makes a visit repeatable.
        report: called after each step.

    Raises:
        VisitFailed: with the code of what went wrong; nothing was written then.
    """
    where = _prepare(plan, text_encoder, device, threads)
    code, settings = code_of(plan.task), plan.task
    model = code.build_model(settings, text_encoder, False)
    load_state(model, state)
    task = code.bind(settings, model.to(where), text_encoder, exams, where, threads)
    optimizer = make_adamw(model, settings.optimizer.weight_decay)
    keep = settings.optimizer.state == "keep"
    if keep and moments is not None:
        load_moments(moments, model, optimizer)
    seed = visit_seed(plan)
    torch.manual_seed(seed)
    warmup = settings.optimizer.warmup_epochs / plan.epochs_total

    def learning_rate_at(epochs_done: float) -> float:
        progress = (plan.epochs_before + epochs_done) / plan.epochs_total
        return warmup_cosine(settings.optimizer.learning_rate, progress, warmup)

    try:
        done = train_epochs(
            task,
            optimizer,
            learning_rate_at,
            LoopSettings(settings.optimizer.clip_norm, settings.precision, where),
            epochs=plan.epochs,
            seed=seed,
            report=report,
        )
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise VisitFailed(
            RefusalCode.OUT_OF_MEMORY, "lower task.batch_size, or turn on activation_checkpointing"
        ) from error
    numbers = done.means() | task.numbers()
    numbers |= {
        "num_steps": float(done.num_steps),
        "num_samples": float(done.num_samples),
        "learning_rate": done.learning_rate,
        "moments_reset": float(plan.moments_from is not None and (moments is None or not keep)),
    }
    if keep:
        save_moments(out / MOMENTS_FILE, model, optimizer)
    write_payload(out / UPDATE_FILE, exchanged_arrays(model))
    write_whole(out / METRICS_FILE, json.dumps(numbers))


def evaluate_visit(
    plan: Plan,
    *,
    state: Path,
    exams: Sequence[Exam],
    text_encoder: Path,
    device: str,
    threads: int,
    out: Path,
    report: Callable[[Progress], None],
) -> None:
    """Score this site's test exams with ``state`` and write released numbers and scores to the folder ``out``.

    Args:
        device, threads: as in ``train_visit``.
        report: called after each batch.

    Raises:
        VisitFailed: with the code of what went wrong; nothing was written then.
    """
    where = _prepare(plan, text_encoder, device, threads)
    code = code_of(plan.task)
    model = code.build_model(plan.task, text_encoder, False)
    load_state(model, state)

    def batch_done(done: int, total: int) -> None:
        report(Progress(step=done, num_steps=total))

    found = code.evaluate(plan.task, model.to(where), text_encoder, exams, where, threads, batch_done)
    write_whole(out / SCORES_FILE, _scores_csv(found.scores), mode=0o600)
    write_whole(out / METRICS_FILE, json.dumps(found.numbers))


def visit_seed(plan: Plan) -> int:
    """Seed of one visit, 0..2**63 - 1: the same after a kill, another for every other visit."""
    digest = hashlib.sha256(f"{plan.seed}/{plan.task_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _prepare(plan: Plan, text_encoder: Path, device: str, threads: int) -> torch.device:
    """Make this process deterministic and check that the text encoder is the run's; gives the device."""
    found = folder_digest(text_encoder)
    if found != plan.text_encoder:
        raise VisitFailed(
            RefusalCode.TEXT_ENCODER_MISMATCH,
            f"text encoder: expected files of digest {plan.text_encoder[:12]}, found {found[:12]}: "
            "copy the folder that the lead names, with nothing added",
        )
    # Read by cuBLAS when it starts; without it deterministic algorithms are refused on a GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory that it did not write; filling it all first took 16 % of a small visit's time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # Images are read by our own threads; OpenCV's would only contend with torch's.
    cv2.setNumThreads(1)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def _scores_csv(scores: Sequence[ExamScore]) -> str:
    """Columns exam, dataset, finding, label (0, 1 or empty) and score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["exam", "dataset", "finding", "label", "score"])
    for row in scores:
        label = "" if row.label is None else int(row.label)
        writer.writerow([row.exam.exam, row.exam.dataset, row.finding, label, repr(row.score)])
    return text.getvalue()
