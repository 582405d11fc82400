"""How far a visit is, as a bar on the terminal; nothing where nobody watches (a service, a file)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mammofed_site.visit import Monitor

_LOOK_EVERY_S = 0.5


@contextmanager
def visit_shown(monitor: Monitor, what: str, console: Console | None = None) -> Iterator[None]:
    """A bar with steps, loss and samples per second while the visit goes on in here.

    Args:
        what: ``round 2: train``.
        console: where; standard error if none is given.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )
    is_over = threading.Event()
    with Progress(*columns, console=console, transient=True) as bar:
        line = bar.add_task(what, total=None, told="")

        def follow() -> None:
            while not is_over.wait(_LOOK_EVERY_S):
                found = monitor.progress
                told = f"loss {found.loss:.3f}  {found.samples_per_s:.1f} samples/s" if found.loss else ""
                bar.update(line, completed=found.step, total=found.num_steps or None, told=told)

        thread = threading.Thread(target=follow, daemon=True, name="progress bar")
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()
