"""The whole federation on one machine: the same ServerApp and ClientApp, no sockets, one visit after the other.

The simulation ends in the same weights, to the bit, as the same run over mutual TLS (tests/flows).
"""

import importlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from mammofed_server.app import app as server_app
from mammofed_server.grid import FileGrid
from mammofed_server.ledger import RunLedger
from mammofed_server.run_state import RunState
from mammofed_server.serve import finish_tracker, only_coordinator, open_or_begin, start_tracker
from mammofed_server.spool import SENT_FILE, WHOLE_FILE
from mammofed_shared.config.brought_models import with_located_models
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import ConfigurationError, PayloadError, Refused
from mammofed_shared.protocol.encoding import decode, expected_tensors
from mammofed_shared.protocol.flower import base_of, plan_message, plan_of, refusal_reply, update_of, update_reply
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.protocol.plan import Plan, Update
from mammofed_shared.protocol.release import check_metrics, check_tensors
from mammofed_shared.protocol.task_spec import TaskSpec
from mammofed_site.app import SITE_KEY
from mammofed_site.app import app as site_app
from mammofed_site.retention import remove_large_files
from mammofed_site.visit import visit_folder, warm_up, worker_context

logger = logging.getLogger(__name__)


def simulated(run: RunSettings, sites: Sequence[SiteSettings], folder: Path) -> tuple[RunSettings, list[SiteSettings]]:
    """The same run and sites, keeping their state below ``folder``; prepared data is read where it is.

    Raises:
        ConfigurationError: the run names a site that has no YAML here.
    """
    missing = sorted(set(run.sites) - {site.site for site in sites})
    if missing:
        raise ConfigurationError(f"sites: the run needs {', '.join(missing)}, which no site YAML describes")
    moved_run = run.model_copy(update={"server": run.server.model_copy(update={"folder": folder / "server"})})
    moved_sites = []
    for site in sites:
        datasets = tuple(
            dataset.model_copy(update={"prepared": site.prepared_folder(dataset)}) for dataset in site.datasets
        )
        changes = {"datasets": datasets, "folder": folder / "sites" / site.site}
        moved_sites.append(with_located_models(site).model_copy(update=changes))
    return moved_run, moved_sites


def simulate(settings: RunSettings, sites: Sequence[SiteSettings]) -> RunState:
    """Run or resume the run in process, and give its folder when the last turn is committed."""

    def in_process(run: RunState) -> None:
        warm_up()
        run_server_app(InProcessGrid(settings.sites, sites, run.record.spec, site_app), run)

    return run_to_end(settings, in_process)


def run_to_end(settings: RunSettings, run_apps: Callable[[RunState], None]) -> RunState:
    """Run or resume the run by ``run_apps``, unless it is finished, and give its folder."""
    with only_coordinator(settings.server.folder):
        run = open_or_begin(settings, make_in_fork)
        run.ledger = RunLedger(run)  # unsigned: nobody here has a key
        if run.ending() is None:
            run.verify_last()
            run_apps(run)
            if settings.tracking.enabled:
                finish_tracker(start_tracker(run.folder), run.folder)
    return run


def make_in_fork(work: Path) -> bool:
    """Make a run's first state in a fork of the process that workers come from: torch is loaded once, not twice."""
    process = worker_context().Process(target=_make_state, args=(str(work),))
    process.start()
    process.join()
    return process.exitcode == 0


def _make_state(work: str) -> None:
    importlib.import_module("mammofed_server.initial_worker").main(Path(work))  # by name: it loads torch


def run_server_app(grid: FileGrid, run: RunState) -> None:
    """Run what is left of the run on a grid, by the coordinator's own ServerApp."""
    grid.ledger = run.ledger
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={"folder": str(run.folder)})
    server_app(grid, context)


def check_arrival(plan: Plan, update: Update, path: Path | None, spec: TaskSpec) -> None:
    """Refuse an update that the mailbox would refuse.

    Raises:
        Refused, PayloadError: with the code that the failed task gets.
    """
    check_metrics(plan, update.metrics)
    if path is not None:
        with Payload(path) as payload:
            check_tensors(payload, expected_tensors(spec, plan.upload))


def whole_update(
    plan: Plan, update: Update, path: Path | None, base: Path | None, folder: Path
) -> tuple[Update, Path | None]:
    """The update as the mailbox would keep it: an encoded one is decoded into ``folder``, beside what was sent.

    Raises:
        Refused: NOT_FINITE, when state and difference do not add up.
    """
    if path is None or plan.upload == "fp32":
        return update, path
    folder.mkdir(parents=True, exist_ok=True)
    sent, whole = folder / SENT_FILE, folder / WHOLE_FILE
    if path != sent:
        sent.unlink(missing_ok=True)
        os.link(path, sent)
    decoded = decode(sent, whole, base if plan.upload == "delta" else None)
    return update.model_copy(update={"decoded": decoded}), whole


class InProcessGrid(FileGrid):
    """Calls each site's ClientApp directly; checks its update as the mailbox would."""

    def __init__(
        self, names: tuple[str, ...], sites: Sequence[SiteSettings], spec: TaskSpec, client_app: ClientApp
    ) -> None:
        super().__init__(names)
        self._app = client_app
        self._settings = {site.site: site for site in sites}
        self._spec = spec

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Do one visit after the other."""
        return [self._visit(message) for message in messages]

    def _visit(self, message: Message) -> Message:
        plan, state = plan_of(message)
        site = self._settings[plan.site]
        logger.info("round %d, visit %d: %s at %s", plan.round, plan.visit, plan.kind, plan.site)
        delivered = _deliver(state, visit_folder(site, plan.task_id)) if state is not None else None
        context = Context(
            run_id=1,
            node_id=self.node_of(plan.site),
            node_config={SITE_KEY: site.model_dump_json()},
            state=RecordDict(),
            run_config={},
        )
        reply = self._app(plan_message(plan, delivered, self.node_of(plan.site)), context)
        if reply.has_error():
            return reply
        try:
            update, path = update_of(reply)
            check_arrival(plan, update, path, self._spec)
            folder = visit_folder(site, plan.task_id) / "arrived"
            update, path = whole_update(plan, update, path, base_of(message), folder)
        except (Refused, PayloadError) as error:
            logger.error("task %s: update refused: %s", plan.task_id, error)
            return refusal_reply(message, error.code)
        return update_reply(message, update, path)

    def forget(self, task_ids: Iterable[str]) -> None:
        """Remove the sites' copies of states and updates; moments and scores stay, as at a real site."""
        for task_id in task_ids:
            folder = visit_folder(self._settings[task_id.split("/")[3]], task_id)
            remove_large_files(folder)
            shutil.rmtree(folder / "arrived", ignore_errors=True)


def _deliver(state: Path, folder: Path) -> Path:
    delivered = folder / "state.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    delivered.unlink(missing_ok=True)
    os.link(state, delivered)
    return delivered
