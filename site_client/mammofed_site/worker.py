"""The heavy half of a visit: reads an order, trains, evaluates or counts, writes the result. Torch lives here."""

import errno
import logging
import time
from collections.abc import Callable
from pathlib import Path

from mammofed_shared.config.site import WorkerSettings
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.errors import DataError, RefusalCode, Refused, VisitFailed
from mammofed_shared.files import write_whole
from mammofed_shared.log import start_logging
from mammofed_shared.protocol.plan import Progress
from mammofed_shared.training.evaluation_visit import evaluate_visit
from mammofed_shared.training.feature_figures import FEATURES_FILE
from mammofed_shared.training.feature_pass import ensure_features, figures_of
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.probe import probe_visit
from mammofed_shared.training.process import make_deterministic, out_of_memory_as_code
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.tasks import code_of
from mammofed_shared.training.visit import VisitFiles, train_visit
from mammofed_site.feature_order import ORDER_FILE, FeatureOrder
from mammofed_site.quality_counts import write_quality_counts
from mammofed_site.visit import VisitOrder

logger = logging.getLogger(__name__)


def do_visit(folder: str, rank: int, report: Callable[[Progress], None]) -> RefusalCode | None:
    """Do process ``rank``'s part of the visit whose order is in ``folder``; None when it went well, else the code that
    may leave.

    The reason in words goes to this site's log only.
    """
    work = Path(folder)
    if (work / ORDER_FILE).exists():
        features = FeatureOrder.model_validate_json((work / ORDER_FILE).read_text(encoding="utf-8"))
        start_logging(features.log_file, console=False)
        return _in_codes(f"features {features.kind.slug}", lambda: _do_features(features, work, rank, report))
    order = VisitOrder.model_validate_json((work / "visit.json").read_text(encoding="utf-8"))
    start_logging(order.log_file)

    def do_it() -> None:
        if order.plan.kind == "query":
            write_quality_counts(order.datasets, work / "unfinished")
        else:
            _do_with_model(order, work, rank, report)

    return _in_codes(f"task {order.plan.task_id}", do_it)


def _in_codes(what: str, do_it: Callable[[], None]) -> RefusalCode | None:
    try:
        do_it()
    except (VisitFailed, DataError, Refused) as error:
        logger.error("%s: %s", what, error)
        return error.code
    except OSError as error:
        logger.exception("%s: a file could not be read or written", what)
        return RefusalCode.DISK_FULL if error.errno == errno.ENOSPC else RefusalCode.WORKER_DIED
    except MemoryError:
        logger.exception("%s: out of memory", what)
        return RefusalCode.OUT_OF_MEMORY
    except Exception:
        # The last net: whatever went wrong, its words stay in the site's log and only a code leaves.
        logger.exception("%s: the worker failed", what)
        return RefusalCode.WORKER_DIED
    return None


def _do_features(order: FeatureOrder, folder: Path, rank: int, report: Callable[[Progress], None]) -> None:
    hardware = _hardware(order.worker, folder, rank, is_group=not order.is_prediction)
    make_deterministic(hardware)
    data = SiteData(
        exams=read_exams(order.datasets, order.preprocessing),
        datasets=tuple(name for name, _ in order.datasets),
        text_encoder=None,
        least_cell=1,  # no figure of patients is told
        caches=order.caches,
        loaders=order.worker.loaders,
        encoder=order.encoder,
        preprocessing=order.preprocessing,
        feature_cache=order.features,
    )
    exams = code_of(order.task).feature_exams(order.task, data.exams) if order.task is not None else data.exams
    with out_of_memory_as_code():
        group = WorkerGroup(hardware)
        if order.is_prediction:
            write_whole(folder / FEATURES_FILE, figures_of(order.kind, data, group, exams).model_dump_json())
        else:
            ensure_features(
                order.kind, data, group, lambda done, total: report(Progress(step=done, num_steps=total)), exams
            )


def _do_with_model(order: VisitOrder, folder: Path, rank: int, report: Callable[[Progress], None]) -> None:
    began_s = time.monotonic()
    hardware = _hardware(order.worker, folder, rank, is_group=order.plan.kind == "train")
    data, out = site_data(order), folder / "unfinished"
    if order.is_probe:
        probe_visit(order.plan, out, folder, data, hardware, report, began_s)
        return
    assert order.state is not None, "a visit starts from a state"
    files = VisitFiles(
        state=order.state,
        moments=order.moments,
        out=out,
        kept=folder,
        checkpoint_every_s=60 * order.worker.checkpoint_every_min,
        control=order.control,
    )
    if order.plan.kind == "train":
        train_visit(order.plan, files, data, hardware, report, order.dp_sgd)
    else:
        evaluate_visit(order.plan, files, data, hardware, report)


def _hardware(worker: WorkerSettings, folder: Path, rank: int, *, is_group: bool) -> Hardware:
    return Hardware(
        device=worker.device,
        distribution=worker.distribution if is_group else "none",
        num_processes=worker.processes if is_group else 1,
        rank=rank,
        rendezvous=str(folder / "rendezvous"),
        threads=worker.threads,
        micro_batch=worker.micro_batch,
        compile=worker.compile,
    )


def site_data(order: VisitOrder) -> SiteData:
    """The exams that an order names."""
    return SiteData(
        exams=read_exams(order.datasets, order.plan.preprocessing),
        datasets=tuple(name for name, _ in order.datasets),
        text_encoder=order.text_encoder,
        encoder=order.encoder,
        preprocessing=order.plan.preprocessing,
        feature_cache=order.features,
        is_probe=order.is_probe,
        least_cell=order.least_cell,
        prepared=tuple(path for _, path in order.datasets),
        caches=order.caches,
        loaders=order.worker.loaders,
    )
