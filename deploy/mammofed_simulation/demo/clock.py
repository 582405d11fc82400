"""How long each part of the demo took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class Clock:
    """Announces the parts of the demo and measures them."""

    def __init__(self, console: Console, num_phases: int) -> None:
        self._console = console
        self._num_phases = num_phases
        self.minutes: dict[str, float] = {}
        """Phase → minutes, in order."""

    @contextmanager
    def phase(self, name: str, what: str) -> Iterator[None]:
        """Announce a part and measure it."""
        number = f"{len(self.minutes) + 1}/{self._num_phases}"
        self._console.print(f"\n[bold]{number}  {name}[/bold]  {what}", soft_wrap=True)
        start = time.monotonic()
        yield
        self.minutes[name] = (time.monotonic() - start) / 60
        self._console.print(f"     [dim]{self.minutes[name]:.1f} min[/dim]")
