"""A site as a Flower ``ClientApp``: permit, train, release. One object for the link, the simulation and Ray."""

import json
import logging
import time
from contextvars import ContextVar

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import PayloadError, Refused, VisitFailed
from mammofed_shared.protocol.flower import plan_of, refusal_reply, update_reply
from mammofed_site.audit import Audit
from mammofed_site.egress import release
from mammofed_site.policy import permit
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


def _visit(message: Message, context: Context) -> Message:
    settings = SiteSettings.model_validate_json(str(context.node_config[SITE_KEY]))
    audit = Audit(settings.folder)
    plan, state = plan_of(message)
    monitor = current_monitor.get(Monitor())
    try:
        permit(plan, settings)
        audit.write("permitted", task=plan.task_id, state=plan.state.digest, settings=plan.task.name)
        remove_old_visits(settings, plan)
        started = time.monotonic()
        result = run_visit(settings, plan, state, monitor)
        path = result / "update.safetensors" if plan.kind == "train" else None
        metrics = json.loads((result / "metrics.json").read_text(encoding="utf-8"))
        metrics["duration_s"] = time.monotonic() - started
        if "num_samples" in metrics:
            metrics["samples_per_s"] = metrics["num_samples"] / metrics["duration_s"]
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
        metrics=sorted(update.metrics),
    )
    return update_reply(message, update, path)
