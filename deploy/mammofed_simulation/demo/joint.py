"""The joint run: a coordinator and a client at each hospital, as separate processes; one client is killed and started
again.
"""

import os
import signal
import time
from dataclasses import dataclass

from mammofed_server.run_state import RunState
from mammofed_server.status import RunStatus, SiteLine, read_status
from mammofed_shared.errors import StateError
from mammofed_simulation.demo.configuration import DemoConfigs
from mammofed_simulation.demo.processes import Processes, Started
from mammofed_simulation.demo.results import Interruption
from mammofed_simulation.demo.watching import Watcher

VICTIM = "mayo"
_LOOK_EVERY_S = 0.2
_FAREWELL_S = 60.0
"""How long the clients may take to end after the coordinator did."""


@dataclass
class _Federation:
    """The running processes."""

    processes: Processes
    configs: DemoConfigs
    server: Started
    clients: dict[str, Started]

    def start_client(self, site: str) -> None:
        words = ("site-client", "--site", site, "--config", str(self.configs.site_files[site]))
        self.clients[site] = self.processes.start(f"site-client-{site}", *words)

    def check(self) -> None:
        """See that whoever should run does.

        Raises:
            CommandFailed: a process ended with an error.
        """
        # A client that ends because the coordinator did is not the cause: the coordinator is asked first.
        for started in (self.server, *self.clients.values()):
            if started.process.poll() not in (None, 0):
                raise started.failure()


def run_joint(processes: Processes, configs: DemoConfigs, watcher: Watcher) -> Interruption | None:
    """Run the federation to its end.

    Returns:
        Where the one client was when it was killed; None if it was never seen in the middle of a visit.

    Raises:
        CommandFailed: the coordinator or a client ended with an error.
    """
    server = processes.start("fl-server", "fl-server", "--config", str(configs.run_file))
    federation = _Federation(processes, configs, server, {})
    for site in configs.sites:
        federation.start_client(site)
    interruption: Interruption | None = None
    with watcher:
        while server.process.poll() is None:
            federation.check()
            status = _status(configs)
            if status is not None:
                watcher.show(status)
                if interruption is None and (line := in_the_middle(status)) is not None:
                    interruption = _kill_and_restart(federation, line, watcher)
            time.sleep(_LOOK_EVERY_S)
        federation.check()
        for client in federation.clients.values():
            client.process.wait(_FAREWELL_S)
        federation.check()
        watcher.show(read_status(configs.run.server.folder))
    return interruption


def _status(configs: DemoConfigs) -> RunStatus | None:
    folder = configs.run.server.folder
    try:
        return read_status(folder) if RunState.exists(folder) else None
    except StateError:
        return None  # the run has begun, its first status is not yet written


def in_the_middle(status: RunStatus) -> SiteLine | None:
    """The victim's line, if it is in the middle of a visit in the middle of the run."""
    for line in status.sites:
        if line.site == VICTIM and line.kind == "train" and line.round >= status.num_rounds // 2:
            return line if 0 < line.step < line.num_steps else None
    return None


def _kill_and_restart(federation: _Federation, line: SiteLine, watcher: Watcher) -> Interruption:
    victim = federation.clients[line.site]
    # Its own process only, as if the machine's memory had run out; its worker ends when it finds nobody to talk to.
    os.kill(victim.process.pid, signal.SIGKILL)
    victim.process.wait()
    watcher.say(
        f"killed site-client of {line.site} (SIGKILL) at step {line.step} of {line.num_steps} "
        f"of its visit in round {line.round}"
    )
    federation.start_client(line.site)
    watcher.say(f"started site-client of {line.site} again: it does that visit anew, and the run goes on")
    return Interruption(site=line.site, round=line.round, visit=line.visit, step=line.step, num_steps=line.num_steps)
