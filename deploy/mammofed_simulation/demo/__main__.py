"""The newcomer's command: ``python -m mammofed_simulation.demo``, or `make demo SEED=1`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mammofed_shared.commands import ExitCode, run_command

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def demo(
    seed: Annotated[int, typer.Option(min=0, help="Of the patients and of the training.")] = 1,
    output: Annotated[
        Path | None, typer.Option(help="Folder of everything; demo-output/seed-<seed> by default.", show_default=False)
    ] = None,
) -> None:
    """Show three phantom hospitals training one model together. Exit code 8: the model missed its bar."""
    # Here, not above: the processes that draw the phantoms import this file again, and need nothing of the story.
    from mammofed_simulation.demo.story import tell

    results = tell(seed, output or Path(f"demo-output/seed-{seed}"), Console(highlight=False))
    if not results.is_bar_met:
        sys.exit(ExitCode.BAR_MISSED)


if __name__ == "__main__":
    run_command(app)
