"""A site as a Flower ``ClientApp``: permit, work, release. One object for the link, the simulation and Ray."""

import json
import logging
import time
from contextvars import ContextVar
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from pydantic import ConfigDict, TypeAdapter, ValidationError

from mammofed_shared.config.risk_metrics import TENTHS
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import PayloadError, RefusalCode, Refused, VisitFailed
from mammofed_shared.files import write_whole
from mammofed_shared.protocol.flower import plan_of, refusal_reply, update_reply
from mammofed_shared.protocol.histogram import is_histogram
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.protocol.statement import Filter
from mammofed_site.allowed_numbers import allowed_numbers
from mammofed_site.attempts import run_visit_again
from mammofed_site.audit import Audit
from mammofed_site.disclosure import COUNTED_FILE, Counts
from mammofed_site.egress import release
from mammofed_site.gate import Gate
from mammofed_site.hold import refuse_while_held
from mammofed_site.policy import check_rules, check_tensor_names, permit
from mammofed_site.policy_file import InForce, policy_in_force
from mammofed_site.privacy import permit_privacy, protect
from mammofed_site.released_counts import tell_once
from mammofed_site.released_evaluations import tell_evaluation
from mammofed_site.retention import remove_old_visits
from mammofed_site.transfer import encode_update, whole_state
from mammofed_site.update_norm import check_norm
from mammofed_site.visit import Monitor, forget_result
from mammofed_site.visit_count import count_visit
from mammofed_site.withheld_numbers import withhold

logger = logging.getLogger(__name__)

SITE_KEY = "site"
"""Key of Flower's node configuration under which a site finds its settings, as JSON."""

_OF_THE_MOMENT = frozenset({RefusalCode.OUT_OF_HOURS, RefusalCode.VETOED})
"""Refusals that say nothing of the result: it is sent when the site takes part again."""

current_monitor: ContextVar[Monitor] = ContextVar("current_monitor")
"""Set by whoever calls the app and wants to watch or stop the visit."""

current_gate: ContextVar[Gate | None] = ContextVar("current_gate", default=None)
"""Set by whoever sends what the app releases to another machine; it lets nothing else out."""

_named_numbers: TypeAdapter[dict[str, float]] = TypeAdapter(dict[str, float], config=ConfigDict(strict=True))

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
    site = SiteSettings.model_validate_json(str(context.node_config[SITE_KEY]))
    audit = Audit(site.folder)
    plan, state = plan_of(message)
    monitor = current_monitor.get(Monitor())
    in_force: InForce | None = None
    try:
        in_force = policy_in_force(site)
        settings = in_force.settings
        _permit_now(plan, state, in_force)
        state_digest = plan.state.digest if plan.state else ""
        audit.write("permitted", task=plan.task_id, state=state_digest, settings=plan.task.name, policy=in_force.digest)
        remove_old_visits(settings, plan)
        state = whole_state(settings, plan, state)
        started = time.monotonic()
        result = run_visit_again(settings, plan, state, monitor)
        in_force = policy_in_force(site)  # it may have become stricter in those hours
        settings = in_force.settings
        check_rules(plan, settings)
        path = result / "update.safetensors" if plan.kind == "train" else None
        encoded, filters = frozenset[str](), tuple[Filter, ...]()
        if plan.kind == "query":
            metrics = _protected_counts(result, plan, settings, audit)
        else:
            metrics = withhold(plan, settings, _metrics(result, started))
            metrics = tell_evaluation(settings.folder, plan, metrics, settings.policy.least_cell)
        told = allowed_numbers(plan, metrics, settings.policy)
        if state is not None and path is not None:
            check_tensor_names(settings.policy, path)
            check_norm(settings.policy, state, path)
            path, filters = _protected_update(plan, settings, state, result, audit)
            path, encoded = encode_update(settings, plan, state, path)
        update = release(plan, state, path, told, encoded=encoded).model_copy(update={"filters": filters})
        if plan.kind == "train":
            count_visit(settings.folder, plan)
    except (Refused, VisitFailed, PayloadError) as error:
        logger.error("task %s: %s", plan.task_id, error)
        policy = in_force.digest if in_force is not None else ""
        audit.write("failed", task=plan.task_id, code=error.code.name, policy=policy)
        if error.code not in _OF_THE_MOMENT:
            forget_result(site, plan.task_id)
        return refusal_reply(message, error.code)
    audit.write(
        "released",
        task=plan.task_id,
        digest=update.payload.digest if update.payload else "",
        size=update.payload.size if update.payload else 0,
        metrics=sorted({_recorded_name(name) for name in update.metrics}),
        withheld=len(set(metrics) - set(told)),
        policy=in_force.digest,
        filters=[f"{item.kind} {item.value:g}" for item in filters],
    )
    gate = current_gate.get()
    if gate is not None:
        gate.open_for(update, path)
    return update_reply(message, update, path)


def _permit_now(plan: Plan, state: Path | None, in_force: InForce) -> None:
    refuse_while_held(in_force)
    permit(plan, in_force.settings)
    if plan.kind == "train" and state is not None:
        check_tensor_names(in_force.policy, state)  # an update has the same names: not after hours of training
    permit_privacy(plan, in_force.settings)


def _protected_update(
    plan: Plan, settings: SiteSettings, state: Path, result: Path, audit: Audit
) -> tuple[Path, tuple[Filter, ...]]:
    """The file that may leave, and what the site's policy did to it; what it cost is written down."""
    protected = protect(settings, plan, state, result)
    if protected.epsilon is not None:
        audit.write("spent", task=plan.task_id, epsilon=protected.epsilon)
    return protected.path, protected.filters


def _metrics(result: Path, started: float) -> dict[str, float]:
    """The numbers of a result; they are the same however often it is sent."""
    lasted = result / "duration.json"
    if not lasted.exists():
        write_whole(lasted, json.dumps({"duration_s": time.monotonic() - started}))
    metrics = _numbers(result / "metrics.json") | _numbers(lasted)
    if (result / "timing.json").exists():
        metrics |= _numbers(result / "timing.json")
    return metrics


def _numbers(path: Path) -> dict[str, float]:
    try:
        return _named_numbers.validate_json(path.read_bytes())
    except ValidationError as error:
        raise Refused(RefusalCode.METRIC_NOT_ALLOWED, f"{path.name} of the worker holds more than numbers") from error


def _recorded_name(name: str) -> str:
    """A released number in the audit record: a histogram's bins are one, ``released-evaluations`` holds them all."""
    before, _, last = name.rpartition("/")
    return f"{before}/…" if is_histogram(name) or last in TENTHS else name


def _protected_counts(result: Path, plan: Plan, settings: SiteSettings, audit: Audit) -> dict[str, float]:
    try:
        counts = Counts.model_validate_json((result / COUNTED_FILE).read_bytes())
    except ValidationError as error:
        raise Refused(RefusalCode.METRIC_NOT_ALLOWED, "the worker's counts hold more than counts") from error
    told = tell_once(settings.folder, counts, settings.policy.least_cell)
    audit.write(
        "counted",
        task=plan.task_id,
        data=told.release.data,
        least_cell=told.release.least_cell,
        is_repeated=told.is_repeated,
    )
    return dict(told.release.numbers)
