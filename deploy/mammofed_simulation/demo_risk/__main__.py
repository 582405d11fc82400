"""The researcher's command: ``python -m mammofed_simulation.demo_risk``, or `make demo-risk SEED=1`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mammofed_shared.commands import run_command

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def demo_risk(
    seed: Annotated[int, typer.Option(min=0, help="Of the patients and of the training.")] = 1,
    demo: Annotated[
        Path | None,
        typer.Option(help="Folder of a finished `make demo`; demo-output/seed-<seed> by default.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of everything; demo-output/risk-<seed> by default.", show_default=False)
    ] = None,
) -> None:
    """Train two risk heads and a sparse autoencoder over three phantom hospitals, and explain one patient's risk."""
    # Here, not above: the processes that draw the phantoms import this file again, and need nothing of the story.
    from mammofed_simulation.demo_risk.story import tell

    tell(
        seed,
        demo or Path(f"demo-output/seed-{seed}"),
        output or Path(f"demo-output/risk-{seed}"),
        Console(highlight=False),
    )


if __name__ == "__main__":
    run_command(app)
