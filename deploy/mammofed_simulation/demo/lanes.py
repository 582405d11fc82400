"""Simulations of a demo, some of them side by side, each on one thread."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from mammofed_simulation.demo.processes import Processes, Started

LANES = 2
"""Simulations at a time."""
_LOOK_EVERY_S = 0.2


def simulate_all(processes: Processes, files: Iterable[tuple[str, Path]], say: Callable[[str], None]) -> None:
    """Run `fl-simulate` with each of these files, ``LANES`` at a time.

    Args:
        files: name and YAML file of each, in the order in which they begin.

    Raises:
        CommandFailed: a simulation ended with an error.
    """
    waiting = list(files)
    running: list[tuple[str, Started, float]] = []
    while waiting or running:
        while waiting and len(running) < LANES:
            name, file = waiting.pop(0)
            started = processes.start(f"fl-simulate-{name}", "fl-simulate", "--config", str(file))
            running.append((name, started, time.monotonic()))
        time.sleep(_LOOK_EVERY_S)
        for entry in [entry for entry in running if entry[1].process.poll() is not None]:
            running.remove(entry)
            name, started, begin = entry
            if started.process.returncode != 0:
                raise started.failure()
            say(f"{name} ended after {time.monotonic() - begin:.0f} s")
