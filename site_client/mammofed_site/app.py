"""A site as a Flower ``ClientApp``: permit, work, release. One object for the link, the simulation and Ray."""

import json
import logging
import time
from contextvars import ContextVar
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import PayloadError, Refused, VisitFailed
from mammofed_shared.protocol.flower import plan_of, refusal_reply, update_reply
from mammofed_shared.protocol.histogram import is_histogram
from mammofed_shared.protocol.plan import Plan
from mammofed_site.audit import Audit
from mammofed_site.disclosure import COUNTED_FILE, Counts
from mammofed_site.egress import release
from mammofed_site.policy import permit
from mammofed_site.released_counts import tell_once
from mammofed_site.released_evaluations import tell_evaluation
from mammofed_site.visit import Monitor, forget_result, remove_old_visits, run_visit

logger = logging.getLogger(__name__)

SITE_KEY = "site"
"""Key of Flower's node configuration under which a site finds its settings, as JSON."""

current_monitor: ContextVar[Monitor] = ContextVar("current_monitor")
"""Set by whoever calls the app and wants to watch or stop the visit."""

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the plan's epochs on this site's exams and return the update."""
    return _visit(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the plan's state on this site's held-out exams and return numbers."""
    return _visit(message, context)


@app.query()
def query(message: Message, context: Context) -> Message:
    """Count this site's prepared data and return what of the counts may be told."""
    return _visit(message, context)


def _visit(message: Message, context: Context) -> Message:
    settings = SiteSettings.model_validate_json(str(context.node_config[SITE_KEY]))
    audit = Audit(settings.folder)
    plan, state = plan_of(message)
    monitor = current_monitor.get(Monitor())
    try:
        permit(plan, settings)
        state_digest = plan.state.digest if plan.state else ""
        audit.write("permitted", task=plan.task_id, state=state_digest, settings=plan.task.name)
        remove_old_visits(settings, plan)
        started = time.monotonic()
        result = run_visit(settings, plan, state, monitor)
        path = result / "update.safetensors" if plan.kind == "train" else None
        if plan.kind == "query":
            metrics = _protected_counts(result, plan, settings, audit)
        else:
            metrics = _metrics(result, time.monotonic() - started)
            metrics = tell_evaluation(settings.folder, plan, metrics, settings.policy.least_cell)
        update = release(plan, state, path, metrics)
    except (Refused, VisitFailed, PayloadError) as error:
        logger.error("task %s: %s", plan.task_id, error)
        audit.write("failed", task=plan.task_id, code=error.code.name)
        forget_result(settings, plan.task_id)
        return refusal_reply(message, error.code)
    audit.write(
        "released",
        task=plan.task_id,
        digest=update.payload.digest if update.payload else "",
        size=update.payload.size if update.payload else 0,
        metrics=sorted({_recorded_name(name) for name in update.metrics}),
    )
    return update_reply(message, update, path)


def _metrics(result: Path, duration_s: float) -> dict[str, float]:
    metrics: dict[str, float] = json.loads((result / "metrics.json").read_text(encoding="utf-8"))
    timing = result / "timing.json"
    if timing.exists():
        metrics |= json.loads(timing.read_text(encoding="utf-8"))
    return metrics | {"duration_s": duration_s}


def _recorded_name(name: str) -> str:
    """A released number in the audit record: a histogram's bins are one, ``released-evaluations`` holds them all."""
    return f"{name.rpartition('/')[0]}/…" if is_histogram(name) else name


def _protected_counts(result: Path, plan: Plan, settings: SiteSettings, audit: Audit) -> dict[str, float]:
    counts = Counts.model_validate_json((result / COUNTED_FILE).read_text(encoding="utf-8"))
    told = tell_once(settings.folder, counts, settings.policy.least_cell)
    audit.write(
        "counted",
        task=plan.task_id,
        data=told.release.data,
        least_cell=told.release.least_cell,
        is_repeated=told.is_repeated,
    )
    return dict(told.release.numbers)
