"""The heavy half of a visit: reads an order, trains, evaluates or counts, writes the result. Torch lives here."""

import errno
import logging
from collections.abc import Callable
from pathlib import Path

from mammofed_shared.data.manifest import read_exams
from mammofed_shared.errors import DataError, RefusalCode, Refused, VisitFailed
from mammofed_shared.log import start_logging
from mammofed_shared.protocol.plan import Progress
from mammofed_shared.training.visit import evaluate_visit, train_visit
from mammofed_site.quality_counts import write_quality_counts
from mammofed_site.visit import VisitOrder

logger = logging.getLogger(__name__)


def do_visit(folder: str, state: str | None, out: str, report: Callable[[Progress], None]) -> RefusalCode | None:
    """Do the visit whose order is in ``folder``; None when it went well, else the code that may leave.

    The reason in words goes to this site's log only.
    """
    order = VisitOrder.model_validate_json((Path(folder) / "visit.json").read_text(encoding="utf-8"))
    plan = order.plan
    start_logging(order.log_file)
    try:
        if plan.kind == "query":
            write_quality_counts(order.datasets, Path(out))
        else:
            assert state is not None, "a visit starts from a state"
            _do_with_state(order, Path(state), Path(out), report)
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


def _do_with_state(order: VisitOrder, state: Path, out: Path, report: Callable[[Progress], None]) -> None:
    exams = read_exams(order.datasets, order.plan.preprocessing)
    if order.plan.kind == "train":
        train_visit(
            order.plan,
            state=state,
            moments=order.moments,
            exams=exams,
            text_encoder=order.text_encoder,
            device=order.device,
            threads=order.threads,
            out=out,
            report=report,
        )
    else:
        evaluate_visit(
            order.plan,
            state=state,
            exams=exams,
            text_encoder=order.text_encoder,
            device=order.device,
            threads=order.threads,
            out=out,
            report=report,
        )
