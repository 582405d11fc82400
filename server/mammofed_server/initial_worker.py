"""The process that makes a run's first state: ``python -m mammofed_server.initial_worker FOLDER``. Loads torch."""

import json
import sys
from pathlib import Path

from pydantic import TypeAdapter

from mammofed_shared.config.tasks import TaskSettings
from mammofed_shared.errors import MammofedError
from mammofed_shared.files import write_whole
from mammofed_shared.training.visit import initial_state


def main(folder: Path) -> None:
    """Read ``request.json``; write ``state.safetensors`` and ``spec.json``. Ends the process where that cannot be."""
    try:
        _make(folder)
    except MammofedError as error:
        sys.exit(f"error: {error}")


def _make(folder: Path) -> None:
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    settings: TaskSettings = TypeAdapter(TaskSettings).validate_python(request["task"])
    out = folder / "state.safetensors"
    text_encoder = Path(request["text_encoder"]) if request["text_encoder"] is not None else None
    spec = initial_state(settings, text_encoder=text_encoder, seed=request["seed"], out=out)
    write_whole(folder / "spec.json", spec.model_dump_json())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
