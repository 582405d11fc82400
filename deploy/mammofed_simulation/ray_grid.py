"""The federation on Flower's simulation engine: its Ray actors play the sites, our ServerApp the coordinator.

The engine's nodes have random numbers; each is asked once which site it is. Apart from that and from how weights
travel (ray_edge.py), everything is as in process, and so is the final state, to the bit.
"""

import importlib.util
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from mammofed_server.grid import FileGrid
from mammofed_server.run_state import RunState
from mammofed_server.spool import SENT_FILE, WHOLE_FILE, remove_orphans
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import ConfigurationError, PayloadError, RefusalCode, Refused, RunStopped
from mammofed_shared.protocol.flower import base_of, plan_message, plan_of, refusal_reply, update_reply
from mammofed_shared.protocol.task_spec import TaskSpec
from mammofed_simulation.ray_edge import NAME_QUERY, TENSORS, edge_app, take_in, to_arrays
from mammofed_simulation.simulate import check_arrival, run_server_app, run_to_end, whole_update

logger = logging.getLogger(__name__)

INSTALL = "pip install -c constraints.txt -e '.[simulation]'"
ADDRESS = "RAY_ADDRESS"
"""Ray's own variable: the cluster to run on. Without it a Ray of this machine alone is started, and ended after."""

_LOOK_AGAIN_S = 0.1
_TTL_S = 30 * 24 * 3600.0
"""How long the engine keeps a plan: a visit may take days, and Flower's 12 hours would fail it."""
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # `device: auto` sees what it sees in process
}


def simulate_on_ray(settings: RunSettings, sites: Sequence[SiteSettings]) -> RunState:
    """Run or resume the run on Flower's simulation engine, and give its folder when the last turn is committed.

    Raises:
        ConfigurationError: Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigurationError(f"grid: `ray` needs Ray, which is not installed here: {INSTALL}")
    by_name = {site.site: site for site in sites}
    taking_part = [by_name[name] for name in settings.sites]
    return run_to_end(settings, lambda run: _run_engine(run, taking_part))


def _run_engine(run: RunState, sites: Sequence[SiteSettings]) -> None:
    stopped = threading.Event()
    at_work = threading.Lock()
    coordinator = ServerApp()

    @coordinator.main()
    def main(grid: Grid, context: Context) -> None:
        with at_work:
            names = tuple(site.site for site in sites)
            run_server_app(RayGrid(names, run.record.spec, run.folder / "spool", grid, stopped), run)

    os.environ.update(_ENVIRONMENT)
    try:
        run_simulation(coordinator, edge_app(sites), len(sites), backend_config=_backend(sites))
    finally:
        # The engine runs the coordinator in a thread, which after Ctrl-C would wait for replies for ever.
        stopped.set()
        with at_work:
            pass


def _backend(sites: Sequence[SiteSettings]) -> dict[str, Any]:
    """Resources of Ray and of one visit: as many visits run side by side as have their threads."""
    threads = max(site.worker.threads for site in sites)
    gpus = 1.0 if any(site.worker.device == "cuda" for site in sites) else 0.0
    # Without an address, Ray would also join whatever cluster someone has started on this machine.
    init = {} if ADDRESS in os.environ else {"address": "local", "num_cpus": max(threads, os.cpu_count() or 1)}
    return {"init_args": init, "client_resources": {"num_cpus": threads, "num_gpus": gpus}}


class RayGrid(FileGrid):
    """Our grid on top of the engine's: files on this side, ``ArrayRecord`` on the other.

    <folder>/<task>/update.safetensors   the weights that came back, until their turn is committed
    """

    def __init__(
        self, names: tuple[str, ...], spec: TaskSpec, folder: Path, engine: Grid, stopped: threading.Event
    ) -> None:
        super().__init__(names, is_launched_by_flower=True)
        self._spec = spec
        self._folder = folder
        self._engine = engine
        self._stopped = stopped
        self._nodes = self._meet()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Have all visits done and wait for them, however long they take.

        Raises:
            RunStopped: the engine was stopped meanwhile, or lost a process that plays a site.
        """
        asked = list(messages)
        replies = self._ask([self._carried(message) for message in asked])
        return [self._reply(message, reply) for message, reply in zip(asked, replies, strict=True)]

    def forget(self, task_ids: Iterable[str]) -> None:
        """Remove the updates of these tasks; at the sites, a later visit removes what it does not need."""
        for task_id in task_ids:
            shutil.rmtree(self._task_folder(task_id), ignore_errors=True)

    def clear(self, is_needed: Callable[[str], bool]) -> None:
        """Remove the updates of all other tasks."""
        remove_orphans(self._folder, is_needed)

    def _task_folder(self, task_id: str) -> Path:
        return self._folder / task_id.replace("/", "_")

    def _meet(self) -> dict[str, int]:
        """Which of the engine's nodes is which site."""
        while len(nodes := list(self._engine.get_node_ids())) < len(self.sites):
            self._wait()
        kind = f"{MessageType.QUERY}.{NAME_QUERY}"
        replies = self._ask([Message(RecordDict(), node, kind, ttl=_TTL_S) for node in nodes])
        failed = [reply.error.reason for reply in replies if reply.has_error()]
        if failed:
            raise RunStopped(f"a node of Flower's simulation engine cannot play its site: {failed[0]}")
        return {str(reply.content["site"]["name"]): reply.metadata.src_node_id for reply in replies}

    def _carried(self, message: Message) -> Message:
        """A plan as the engine's message, with the weights in it."""
        plan, state = plan_of(message)
        logger.info("round %d, visit %d: %s at %s", plan.round, plan.visit, plan.kind, plan.site)
        carried = plan_message(plan, state, self._nodes[plan.site])
        if state is not None:
            carried.content[TENSORS] = to_arrays(state)
        carried.metadata.ttl = _TTL_S
        return carried

    def _ask(self, requests: Sequence[Message]) -> list[Message]:
        """The engine's replies, in the order of the requests."""
        waiting = list(self._engine.push_messages(requests))
        assert len(waiting) == len(requests), "the engine knows every node and takes every message"
        replies: dict[str, Message] = {}
        while len(replies) < len(waiting):
            self._wait()
            for reply in self._engine.pull_messages(set(waiting) - set(replies)):
                replies[reply.metadata.reply_to_message_id] = reply
        return [replies[message_id] for message_id in waiting]

    def _wait(self) -> None:
        if self._stopped.wait(_LOOK_AGAIN_S):
            raise RunStopped("Flower's simulation engine was stopped; start the same command again to go on")

    def _reply(self, message: Message, reply: Message) -> Message:
        """The engine's reply as the reply to the coordinator's message, with the weights in a file."""
        plan, _ = plan_of(message)
        if reply.has_error():
            return refusal_reply(message, _code_of(reply.error, plan.site))
        try:
            folder = self._task_folder(plan.task_id)
            update, path = take_in(reply, folder / (WHOLE_FILE if plan.upload == "fp32" else SENT_FILE))
            check_arrival(plan, update, path, self._spec)
            update, path = whole_update(plan, update, path, base_of(message), folder)
        except (Refused, PayloadError) as error:
            logger.error("task %s: update refused: %s", plan.task_id, error)
            return refusal_reply(message, error.code)
        return update_reply(message, update, path)


def _code_of(error: Error, site: str) -> RefusalCode:
    """The code that the site gave; only that is a failed visit.

    Raises:
        RunStopped: the error is the engine's, whose numbers overlap ours: it lost the process that plays the site, as
            happens when the engine is stopped. Nothing is known of the visit then, and a new start does it again.
    """
    code = RefusalCode.__members__.get(error.reason or "")
    if code is None:
        raise RunStopped(
            f"Flower's simulation engine (its error {error.code}) lost the process of site {site}; the lines above say "
            "why. Start the same command again to go on."
        )
    return code
