"""The researcher's command: `fl-simulate`."""

import logging
import os
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from mammofed_shared.commands import ExitCode, run_command
from mammofed_shared.config.loading import load
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.simulation import SimulationSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.log import start_logging
from mammofed_simulation.simulate import simulate, simulated

DEFAULT_CONFIG = Path("configs/simulation.yaml")

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def run(
    config: Annotated[Path, typer.Option("--config", "-c", help="The simulation's YAML.")] = DEFAULT_CONFIG,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY.SUB=VALUE]...",
            help="Settings laid over the simulation's YAML; `run.…` reaches into the run's YAML.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a federation on this machine, without sockets; it ends in the same weights as over the network."""
    own = [item for item in overrides or [] if not item.startswith("run.")]
    of_run = [item.removeprefix("run.") for item in overrides or [] if item.startswith("run.")]
    settings = load(config, SimulationSettings, own)
    start_logging(settings.folder / "fl-simulate.log")
    federation = load(settings.run, RunSettings, of_run)
    sites = [load(path, SiteSettings) for path in settings.sites]
    moved, moved_sites = simulated(federation, sites, settings.folder)
    if settings.grid == "ray":
        from mammofed_simulation.ray_grid import simulate_on_ray

        finished = simulate_on_ray(moved, moved_sites)
    else:
        finished = simulate(moved, moved_sites)
    manifest = finished.manifest(finished.last_turn())
    typer.echo(f"finished: {finished.checkpoint_folder(manifest.turn)}")
    typer.echo(f"sha256 {manifest.state.digest}")


def main() -> None:
    """Entry point of `fl-simulate`."""
    try:
        run_command(app)
    except SystemExit as ended:
        _end_although_threads_wait(ended)
        raise


def _end_although_threads_wait(ended: SystemExit) -> None:
    """After Ctrl-C, a thread of Flower's engine can wait in Ray for ever, and Python at its end for that thread."""
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else ExitCode.UNEXPECTED)


if __name__ == "__main__":
    main()
