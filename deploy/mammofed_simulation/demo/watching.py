"""What the terminal shows of the joint run: one live table, or one line a turn where the output is no terminal."""

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live

from mammofed_server.run_state import RunState
from mammofed_server.status import RunStatus, status_table
from mammofed_simulation.demo.folder import DemoFolder


class Watcher(Protocol):
    """Shows a run while it is going on; used as a context manager."""

    def show(self, status: RunStatus) -> None:
        """Show how far the run is."""

    def say(self, event: str) -> None:
        """Tell something that happened."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LiveTable:
    """The coordinator's status as one table that is drawn again and again; events stay above it."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4)

    def show(self, status: RunStatus) -> None:
        """Draw the table anew."""
        self._live.update(Group("", status_table(status)))

    def say(self, event: str) -> None:
        """Tell an event above the table."""
        self._live.console.print(f"     [bold yellow]{event}[/bold yellow]", soft_wrap=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)


class Lines:
    """A line for each turn, once it is committed and evaluated."""

    def __init__(self, console: Console, folder: DemoFolder) -> None:
        self._console = console
        self._folder = folder
        self._next = 0

    def show(self, status: RunStatus) -> None:
        """Tell the turns that are new."""
        run = RunState.open(self._folder.server)
        while self._next <= status.turn and (evaluation := run.evaluation(self._next)) is not None:
            trained = " and ".join(
                f"{item.site} (loss {item.metrics['loss']:.2f})" for item in run.manifest(self._next).contributions
            )
            aurocs = ", ".join(
                f"{site} {metrics['auroc/mass']:.2f}"
                for site, metrics in evaluation.metrics.items()
                if "auroc/mass" in metrics
            )
            turn = f"turn {self._next:2d} of {status.num_turns}, round {evaluation.round}"
            self._console.print(f"     {turn}: {trained or 'before any training'}; mass AUROC {aurocs}", soft_wrap=True)
            self._next += 1

    def say(self, event: str) -> None:
        """Tell an event as a line."""
        self._console.print(f"     [bold yellow]{event}[/bold yellow]", soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
