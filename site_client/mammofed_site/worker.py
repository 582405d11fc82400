"""The heavy half of a visit: reads an order, trains, evaluates or counts, writes the result. Torch lives here."""

import errno
import logging
import time
from collections.abc import Callable
from pathlib import Path

from mammofed_shared.data.manifest import read_exams
from mammofed_shared.errors import DataError, RefusalCode, Refused, VisitFailed
from mammofed_shared.log import start_logging
from mammofed_shared.protocol.plan import Progress
from mammofed_shared.training.evaluation_visit import evaluate_visit
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.probe import probe_visit
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.visit import VisitFiles, train_visit
from mammofed_site.quality_counts import write_quality_counts
from mammofed_site.visit import VisitOrder

logger = logging.getLogger(__name__)


def do_visit(folder: str, rank: int, report: Callable[[Progress], None]) -> RefusalCode | None:
    """Do process ``rank``'s part of the visit whose order is in ``folder``; None when it went well, else the code that
    may leave.

    The reason in words goes to this site's log only.
    """
    order = VisitOrder.model_validate_json((Path(folder) / "visit.json").read_text(encoding="utf-8"))
    plan = order.plan
    start_logging(order.log_file)
    try:
        if plan.kind == "query":
            write_quality_counts(order.datasets, Path(folder) / "unfinished")
        else:
            _do_with_model(order, Path(folder), rank, report)
    except (VisitFailed, DataError, Refused) as error:
        logger.error("task %s: %s", plan.task_id, error)
        return error.code
    except OSError as error:
        logger.exception("task %s: a file could not be read or written", plan.task_id)
        return RefusalCode.DISK_FULL if error.errno == errno.ENOSPC else RefusalCode.WORKER_DIED
    except MemoryError:
        logger.exception("task %s: out of memory", plan.task_id)
        return RefusalCode.OUT_OF_MEMORY
    except Exception:
        # The last net: whatever went wrong, its words stay in the site's log and only a code leaves.
        logger.exception("task %s: the worker failed", plan.task_id)
        return RefusalCode.WORKER_DIED
    return None


def _do_with_model(order: VisitOrder, folder: Path, rank: int, report: Callable[[Progress], None]) -> None:
    began_s = time.monotonic()
    data, hardware, out = site_data(order), _hardware(order, folder, rank), folder / "unfinished"
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


def _hardware(order: VisitOrder, folder: Path, rank: int) -> Hardware:
    worker = order.worker
    is_training = order.plan.kind == "train"
    return Hardware(
        device=worker.device,
        distribution=worker.distribution if is_training else "none",
        num_processes=worker.processes if is_training else 1,
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
        least_cell=order.least_cell,
        prepared=tuple(path for _, path in order.datasets),
        caches=order.caches,
        loaders=order.worker.loaders,
    )
