"""Writes what the demo leaves its reader: page, picture, numbers, model."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from mammofed_server.run_state import RunState
from mammofed_shared.checkpoint import MANIFEST_FILE, STATE_FILE, read_checkpoint
from mammofed_shared.files import write_whole
from mammofed_simulation.demo.configuration import DemoConfigs
from mammofed_simulation.demo.examples import Example
from mammofed_simulation.demo.folder import DemoFolder
from mammofed_simulation.demo.page import page
from mammofed_simulation.demo.poster import poster
from mammofed_simulation.demo.results import Results


def write_report(
    folder: DemoFolder, configs: DemoConfigs, results: Results, examples: Sequence[Example], commands: Sequence[str]
) -> dict[str, Path]:
    """Write everything, and give the paths by what they are."""
    root, size = folder.root, configs.run.preprocessing
    write_whole(root / "results.json", results.model_dump_json(indent=1))
    write_whole(root / "report.html", page(results, examples, (size.height, size.width), commands))
    write_whole(root / "report.png", poster(results, examples))
    _link_model(RunState.open(folder.server), folder.model)
    return {
        "page": root / "report.html",
        "picture": root / "report.png",
        "numbers": root / "results.json",
        "model": folder.model,
        "MLflow": folder.server / "mlflow.db",
        "logs": folder.logs,
    }


def _link_model(run: RunState, target: Path) -> None:
    """The last checkpoint, verified, under a name that is easy to find; no byte of the weights is copied."""
    source = run.checkpoint_folder(run.last_turn())
    _, payload = read_checkpoint(source)
    payload.close()
    target.mkdir()
    os.link(source / STATE_FILE, target / STATE_FILE)
    shutil.copyfile(source / MANIFEST_FILE, target / MANIFEST_FILE)
