"""Runs one visit in a worker group: the parent stays light, and holds key and certificate alone.

    <site folder>/visits/<task>/visit.json           what the group shall do (a VisitOrder)
    <site folder>/visits/<task>/state.safetensors    the state that came
    <site folder>/visits/<task>/checkpoint.safetensors, received.json    where the group goes on after a kill
    <site folder>/visits/<task>/result/              what the group made; renamed into place when it is whole
        update.safetensors  metrics.json  timing.json  spec.json  moments.safetensors  control.safetensors  scores.csv
        counted.json

Processes are forked from a server process that has torch loaded (multiprocessing's forkserver), so a visit starts in
milliseconds and each starts fresh. They get neither certificate nor the coordinator's address. When one fails or dies
all are killed: the others may be waiting for what it will never say.
"""

import json
import logging
import math
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from mammofed_shared.config.base import Digest, Settings
from mammofed_shared.config.features import FeatureCacheSettings
from mammofed_shared.config.site import SiteSettings, WorkerSettings
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.files import fsync_folder, write_whole
from mammofed_shared.protocol.plan import Plan, Progress
from mammofed_shared.training.dp_sgd_account import ACCOUNT_FILE, SECRET_FILE, DpSgdOrder
from mammofed_site import worker_entry
from mammofed_site.data_digest import data_digest
from mammofed_site.micro_batch import half_micro_batch, known_micro_batch, note_micro_batch
from mammofed_site.prediction import compare_with_prediction
from mammofed_site.privacy import dp_sgd_order, is_price_of_today

logger = logging.getLogger(__name__)

PROGRESS_FILES = ("checkpoint.safetensors", "received.json", SECRET_FILE)
"""What a visit that was cut goes on from; made by ``training/visit.py``."""
CACHES_FOLDER = "caches"
"""In the site's folder: what can be made again, such as tokens of reports and features of images."""
PAUSE_FILE = "pause"
"""Made by the parent: stop after the next step (``training/visit.py``)."""
PAUSE_S = 120.0
"""How long a worker has for the step in hand and its checkpoint when a visit shall pause."""
_LOOK_AGAIN_S = 0.2


class VisitOrder(Settings):
    """All that a worker is told."""

    plan: Plan
    datasets: tuple[tuple[str, Path], ...]
    """Name and prepared folder of each data set."""
    text_encoder: Path | None
    encoder: Path | None = None
    """Folder of the frozen model, where the task stands on one."""
    features: FeatureCacheSettings = FeatureCacheSettings()
    worker: WorkerSettings
    least_cell: int
    data: Digest
    """Of the prepared tables and translations."""
    caches: Path
    """What can be made again, such as tokens of reports."""
    log_file: Path
    """The worker's own words, tracebacks among them; stays at the site."""
    state: Path | None
    moments: Path | None
    """Optimizer moments to go on from; None: fresh ones."""
    control: Path | None = None
    """The site's own control variate (SCAFFOLD) to go on from; None: 0."""
    is_probe: bool = False
    """Only find out what the visit would take (`site-client plan`); there is no state then."""
    dp_sgd: DpSgdOrder | None = None
    """How to protect each patient; None: not."""


@dataclass
class Monitor:
    """How far the visit in hand is, and whether it shall stop; shared between the visit's thread and the link's."""

    progress: Progress = field(default_factory=Progress)
    cancelled: threading.Event = field(default_factory=threading.Event)
    paused: threading.Event = field(default_factory=threading.Event)
    """The visit shall stop after its next step, and go on from there when it is asked for again."""


class VisitCancelled(Exception):
    """The coordinator or the site withdrew the visit; its worker was killed."""


class VisitPaused(Exception):
    """The site stopped the visit for now; its worker has ended, and what it did is kept."""


def visit_folder(settings: SiteSettings, task_id: str) -> Path:
    """Where a visit's files are."""
    return settings.folder / "visits" / task_id.replace("/", "_")


def finished_result(settings: SiteSettings, folder: Path, plan: Plan) -> Path | None:
    """The result of a visit that was finished earlier, perhaps by a process that was killed since.

    A result whose update was handed in and removed does not count: who asks for it again gets it trained again. Nor
    does one of another plan of the same name (a new run may be called as an old one), of other data or of another least
    cell, nor one with DP-SGD that is not paid while another was paid since: its price, and whether it fits the budget,
    were told without that one. Nor do counts: the data may have changed, and counting is quick.
    """
    if plan.kind == "query":
        return None
    result = folder / "result"
    needed = "update.safetensors" if plan.kind == "train" else "metrics.json"
    if not (result / needed).exists():
        return None
    if not _is_progress_of(settings, folder, plan):
        return None
    order = VisitOrder.model_validate_json((folder / "visit.json").read_text(encoding="utf-8"))
    return result if order.dp_sgd is None or is_price_of_today(settings, order.dp_sgd, result) else None


def forget_result(settings: SiteSettings, task_id: str) -> None:
    """Remove a result that was refused: who asks for the visit again gets it done again, not the refused one."""
    shutil.rmtree(visit_folder(settings, task_id) / "result", ignore_errors=True)


def run_visit(settings: SiteSettings, plan: Plan, state: Path | None, monitor: Monitor) -> Path:
    """Do a visit, unless it was done before, and give the folder of its result.

    Raises:
        VisitFailed: the worker said why, or died.
        VisitCancelled, VisitPaused: the monitor was told so meanwhile.
    """
    folder = visit_folder(settings, plan.task_id)
    result = finished_result(settings, folder, plan)
    if result is not None:
        logger.info("task %s was done before; its result is sent again", plan.task_id)
        return result
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "result", ignore_errors=True)  # before the new order: it is not the order's result
    if not _is_progress_of(settings, folder, plan):
        _forget_progress(folder)
    is_whole = not any((folder / name).exists() for name in PROGRESS_FILES)
    began_s = time.monotonic()
    result = do_order(settings, folder, make_order(settings, plan, state), monitor)
    if plan.kind == "train" and is_whole:
        compare_with_prediction(settings, plan, time.monotonic() - began_s)
    return result


def data_of(settings: SiteSettings, task_id: str) -> str:
    """Digest of the prepared tables that a visit was done with."""
    path = visit_folder(settings, task_id) / "visit.json"
    return VisitOrder.model_validate_json(path.read_text(encoding="utf-8")).data


def make_order(settings: SiteSettings, plan: Plan, state: Path | None, *, is_probe: bool = False) -> VisitOrder:
    """What a worker group of this site is told to do for a plan.

    Raises:
        VisitFailed: SETTINGS, when the site's control variate is lost.
    """
    return VisitOrder(
        plan=plan,
        datasets=tuple((dataset.name, settings.prepared_folder(dataset)) for dataset in settings.datasets),
        text_encoder=settings.text_encoder,
        encoder=settings.encoder,
        features=settings.features,
        worker=settings.worker.model_copy(update={"micro_batch": known_micro_batch(settings, plan)}),
        least_cell=settings.policy.least_cell,
        data=data_digest(settings),
        caches=settings.folder / CACHES_FOLDER,
        log_file=settings.folder / "worker.log",
        state=state,
        moments=_moments(settings, plan),
        control=_control(settings, plan),
        is_probe=is_probe,
        dp_sgd=dp_sgd_order(settings) if plan.kind == "train" else None,
    )


def do_order(settings: SiteSettings, folder: Path, order: VisitOrder, monitor: Monitor) -> Path:
    """Do an order in a folder that is there, and give that of its result; each time memory runs out, again with half
    as many samples at once.

    Raises: as ``run_visit``.
    """
    plan = order.plan
    while True:
        write_whole(folder / "visit.json", order.model_dump_json())
        try:
            return _attempt(folder, order, monitor)
        except VisitFailed as error:
            smaller = half_micro_batch(order.worker, plan)
            if error.code is not RefusalCode.OUT_OF_MEMORY or plan.kind != "train" or smaller is None:
                raise
        logger.warning(
            "task %s: out of memory; each process now computes %d samples at once, and the batch of %d stays whole",
            plan.task_id,
            smaller,
            plan.task.batch_size,
        )
        note_micro_batch(settings, plan, smaller)
        order = order.model_copy(update={"worker": order.worker.model_copy(update={"micro_batch": smaller})})


def _attempt(folder: Path, order: VisitOrder, monitor: Monitor) -> Path:
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    (folder / "rendezvous").unlink(missing_ok=True)
    (folder / PAUSE_FILE).unlink(missing_ok=True)
    _forget_halves(folder)
    run_group(folder, order.worker.processes if order.plan.kind == "train" else 1, monitor)
    result = folder / "result"
    unfinished.rename(result)
    fsync_folder(folder)
    _forget_progress(folder)
    return result


def _is_progress_of(settings: SiteSettings, folder: Path, plan: Plan) -> bool:
    """Whether what is in the folder was made for this plan, by the rules and of the data of today."""
    try:
        order = VisitOrder.model_validate_json((folder / "visit.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or an older version of this software wrote it
        return False
    today = plan, settings.policy.least_cell, data_digest(settings)
    if plan.kind == "train" and settings.policy.privacy.dp_sgd != (order.dp_sgd.settings if order.dp_sgd else None):
        return False
    return (order.plan, order.least_cell, order.data) == today


def _forget_progress(folder: Path) -> None:
    for name in (*PROGRESS_FILES, "not-finite.json"):
        (folder / name).unlink(missing_ok=True)
    _forget_halves(folder)


def _forget_halves(folder: Path) -> None:
    """Remove files in whose midst a process was killed; each may be as large as a checkpoint."""
    for half in folder.glob(".*.writing"):
        half.unlink(missing_ok=True)


def _moments(settings: SiteSettings, plan: Plan) -> Path | None:
    if plan.moments_from is None or plan.task.optimizer.state == "reset":
        return None
    path = visit_folder(settings, plan.moments_from) / "result" / "moments.safetensors"
    if not path.exists():
        logger.warning("the optimizer moments of %s are not here; this visit starts with fresh ones", plan.moments_from)
        return None
    if settings.policy.privacy.dp_sgd and not (path.parent / ACCOUNT_FILE).exists():
        logger.warning("the optimizer moments of %s were made without DP-SGD; this visit starts with fresh ones",
                       plan.moments_from)  # they are of the data, and nothing hides it  # fmt: skip
        return None
    return path


def _control(settings: SiteSettings, plan: Plan) -> Path | None:
    """The site's own control variate after the visit that the plan goes on from."""
    if not plan.control_variates or plan.kind != "train" or plan.moments_from is None:
        return None
    path = visit_folder(settings, plan.moments_from) / "result" / "control.safetensors"
    if not path.exists():
        raise VisitFailed(
            RefusalCode.SETTINGS,
            f"the control variate of {plan.moments_from} is not in this site's folder any more. The common one still "
            "holds it, so any other would pull this site aside for the rest of the run: bring the folder back, or ask "
            "the lead to go on without this site",
        )
    return path


def run_group(folder: Path, num_processes: int, monitor: Monitor) -> None:
    """Let a worker group do the order in a folder.

    Raises:
        VisitFailed, VisitCancelled, VisitPaused: as ``run_visit``.
    """
    context = worker_context()
    processes: list[ForkServerProcess] = []
    connections: list[Connection] = []
    try:
        for rank in range(num_processes):
            ours, theirs = context.Pipe()
            connections.append(ours)
            process = context.Process(target=worker_entry.run, args=(str(folder), rank, theirs))
            _start(process)  # Ctrl-C in its midst leaves a process that we do not know: it ends when its pipe does
            processes.append(process)
            theirs.close()
        code = _follow(connections, monitor, folder / PAUSE_FILE)
        if code is not None:
            _kill(processes)
    except BaseException:
        _kill(processes)
        raise
    finally:
        for connection in connections:
            connection.close()  # a process that is still there ends when it notices
        for process in processes:
            process.join()
    if code is RefusalCode.OUT_OF_HOURS:
        raise VisitPaused
    if code is not None:
        raise VisitFailed(code, "the worker's own words are in worker.log")


def _start(process: ForkServerProcess) -> None:
    try:
        process.start()
    except (EOFError, ConnectionError) as error:  # it died a moment ago; the next start begins another
        raise VisitFailed(RefusalCode.WORKER_DIED, "the process that workers are forked from has died") from error


def _kill(processes: Sequence[ForkServerProcess]) -> None:
    for process in processes:
        process.kill()


def _follow(connections: Sequence[Connection], monitor: Monitor, pause: Path) -> RefusalCode | None:
    """Read what the processes say until all have ended well (None), or one has not.

    Args:
        pause: is made when the visit shall stop after its next step; a worker that takes no steps then is killed.
    """
    talking = list(connections)
    patient_until_s = math.inf
    while talking:
        if monitor.cancelled.is_set():
            raise VisitCancelled
        if monitor.paused.is_set() and patient_until_s == math.inf:
            pause.touch()
            patient_until_s = time.monotonic() + PAUSE_S
        if time.monotonic() > patient_until_s:
            raise VisitPaused
        for connection in wait(talking, _LOOK_AGAIN_S):
            assert isinstance(connection, Connection)
            try:
                word, value = json.loads(connection.recv_bytes(2**16))
                if word == "progress":
                    _note_progress(monitor, value)
                elif word == "failed":
                    return RefusalCode(value)
                elif word == "done":
                    talking.remove(connection)
            except (EOFError, OSError):  # it died, and its end of the pipe with it
                return RefusalCode.WORKER_DIED
            except (ValueError, TypeError):  # no word that a worker has, so what it said is not even logged
                logger.error("a worker said what it must not say; it was killed")
                return RefusalCode.WORKER_DIED
    return None


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
