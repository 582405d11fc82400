"""Runs one visit in a worker process: the parent stays light, and holds key and certificate alone.

    <site folder>/visits/<task>/visit.json           what the worker shall do (a VisitOrder)
    <site folder>/visits/<task>/state.safetensors    the state that came
    <site folder>/visits/<task>/result/              what the worker made; renamed into place when it is whole
        update.safetensors  metrics.json  moments.safetensors  scores.csv  counted.json

The worker is forked from a server process that has torch loaded (multiprocessing's forkserver), so a visit starts in
milliseconds and each starts fresh. It gets neither certificate nor the coordinator's address.
"""

import json
import logging
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

from mammofed_shared.config.base import Settings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.files import fsync_folder, write_whole
from mammofed_shared.protocol.plan import Plan, Progress
from mammofed_site import worker_entry

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.2


class VisitOrder(Settings):
    """All that a worker is told."""

    plan: Plan
    datasets: tuple[tuple[str, Path], ...]
    """Name and prepared folder of each data set."""
    text_encoder: Path
    device: str
    threads: int
    log_file: Path
    """The worker's own words, tracebacks among them; stays at the site."""
    moments: Path | None
    """Optimizer moments to go on from; None: fresh ones."""


@dataclass
class Monitor:
    """How far the visit in hand is, and whether it shall stop; shared between the visit's thread and the link's."""

    progress: Progress = field(default_factory=Progress)
    cancelled: threading.Event = field(default_factory=threading.Event)


class VisitCancelled(Exception):
    """The coordinator or the site withdrew the visit; its worker was killed."""


def visit_folder(settings: SiteSettings, task_id: str) -> Path:
    """Where a visit's files are."""
    return settings.folder / "visits" / task_id.replace("/", "_")


def finished_result(folder: Path, plan: Plan) -> Path | None:
    """The result of a visit that was finished earlier, perhaps by a process that was killed since.

    A result whose update was handed in and removed does not count: who asks for it again gets it trained again. Nor
    does one of another plan of the same name: a new run may be called as an old one. Nor do counts: the data may have
    changed, and counting is quick.
    """
    if plan.kind == "query":
        return None
    result = folder / "result"
    needed = "update.safetensors" if plan.kind == "train" else "metrics.json"
    if not (result / needed).exists():
        return None
    try:
        order = VisitOrder.model_validate_json((folder / "visit.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # an older version of this software wrote it
        return None
    return result if order.plan == plan else None


def forget_result(settings: SiteSettings, task_id: str) -> None:
    """Remove a result that was refused: who asks for the visit again gets it done again, not the refused one."""
    shutil.rmtree(visit_folder(settings, task_id) / "result", ignore_errors=True)


def run_visit(settings: SiteSettings, plan: Plan, state: Path | None, monitor: Monitor) -> Path:
    """Do a visit, unless it was done before, and give the folder of its result.

    Raises:
        VisitFailed: the worker said why, or died.
        VisitCancelled: ``monitor.cancelled`` was set meanwhile.
    """
    folder = visit_folder(settings, plan.task_id)
    result = finished_result(folder, plan)
    if result is not None:
        logger.info("task %s was done before; its result is sent again", plan.task_id)
        return result
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "result", ignore_errors=True)  # before the new order: it is not the order's result
    order = VisitOrder(
        plan=plan,
        datasets=tuple((dataset.name, settings.prepared_folder(dataset)) for dataset in settings.datasets),
        text_encoder=settings.text_encoder,
        device=settings.worker.device,
        threads=settings.worker.threads,
        log_file=settings.folder / "worker.log",
        moments=_moments(settings, plan),
    )
    write_whole(folder / "visit.json", order.model_dump_json())
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    _run_worker(folder, state, unfinished, monitor)
    result = folder / "result"
    unfinished.rename(result)
    fsync_folder(folder)
    return result


def _moments(settings: SiteSettings, plan: Plan) -> Path | None:
    if plan.moments_from is None or plan.task.optimizer.state == "reset":
        return None
    path = visit_folder(settings, plan.moments_from) / "result" / "moments.safetensors"
    if not path.exists():
        logger.warning("the optimizer moments of %s are not here; this visit starts with fresh ones", plan.moments_from)
        return None
    return path


def remove_old_visits(settings: SiteSettings, plan: Plan) -> None:
    """Remove visits of the same run that nothing will ask for again; scores of evaluations are kept."""
    keep = {visit_folder(settings, name).name for name in (plan.task_id, plan.moments_from) if name}
    folder = settings.folder / "visits"
    for old in folder.glob(f"{plan.run}_r*") if plan.kind == "train" else ():
        if old.name not in keep and old.name.endswith("_train"):
            shutil.rmtree(old, ignore_errors=True)


def _run_worker(folder: Path, state: Path | None, out: Path, monitor: Monitor) -> None:
    context = worker_context()
    ours, theirs = context.Pipe()
    given = None if state is None else str(state)
    process = context.Process(target=worker_entry.run, args=(str(folder), given, str(out), theirs))
    process.start()
    theirs.close()
    try:
        code = _follow(ours, process.is_alive, monitor)
    except BaseException:
        process.kill()
        raise
    finally:
        ours.close()  # a worker that is still there ends when it notices
        process.join()
    if code is not None:
        raise VisitFailed(code, "the worker's own words are in worker.log")


def _follow(connection: Connection, is_alive: Callable[[], bool], monitor: Monitor) -> RefusalCode | None:
    """Read what the worker says until it ends; None when it ended well."""
    while True:
        if monitor.cancelled.is_set():
            raise VisitCancelled
        if connection.poll(_LOOK_AGAIN_S):
            try:
                word, value = json.loads(connection.recv_bytes(2**16))
            except (EOFError, OSError):
                return RefusalCode.WORKER_DIED
            if word == "progress":
                _note_progress(monitor, value)
            elif word == "failed":
                return RefusalCode(value)
            elif word == "done":
                return None
        elif not is_alive():
            return RefusalCode.WORKER_DIED


def _note_progress(monitor: Monitor, value: object) -> None:
    monitor.progress = Progress.model_validate(value)


def warm_up() -> None:
    """Start the process that workers are forked from, so that the first visit need not wait for it."""
    worker_context()
    forkserver.ensure_running()


def worker_context() -> ForkServerContext:
    """What processes are forked from that find torch and the models loaded."""
    # Workers inherit it. Threads of OpenMP that wait by spinning cost a factor of 3 to 10 where cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", worker_entry.HEAVY_MODULE])
    return context
