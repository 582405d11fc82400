"""Makes a run's first state in a process of its own, so that the coordinator itself never loads torch."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mammofed_server.controls import add_controls, with_controls
from mammofed_server.run_state import RunRecord, RunState
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.text_encoder import folder_digest, locate_text_encoder
from mammofed_shared.errors import StateError
from mammofed_shared.files import write_whole
from mammofed_shared.protocol.payload import reference_of
from mammofed_shared.protocol.task_spec import TaskSpec

MakeState = Callable[[Path], bool]
"""Runs ``initial_worker.main`` on a folder outside this process, and says whether it went well."""


def make_in_process_of_its_own(work: Path) -> bool:
    """Start a Python that loads torch, makes the state and ends."""
    command = [sys.executable, "-m", "mammofed_server.initial_worker", str(work)]
    return subprocess.run(command, check=False).returncode == 0


def begin_run(settings: RunSettings, make_state: MakeState = make_in_process_of_its_own) -> RunState:
    """Initialise the model from the run's seed and settings, and begin the run.

    Raises:
        ConfigurationError: the text encoder is not here, and cannot be fetched.
        StateError: the model could not be made; the process's own words stand above it on standard error.
    """
    folder = settings.server.folder
    work = folder / "initial"
    work.mkdir(parents=True, exist_ok=True)
    text_encoder = locate_text_encoder(settings.text_encoder)
    request = {"task": settings.task.model_dump(mode="json"), "text_encoder": str(text_encoder)}
    write_whole(work / "request.json", json.dumps({**request, "seed": settings.seed}))
    if not make_state(work):
        raise StateError("the run's first state could not be made; see the message above")
    state = work / "state.safetensors"
    spec = TaskSpec.model_validate_json((work / "spec.json").read_text(encoding="utf-8"))
    if any(phase.has_controls for phase in settings.schedule.each_phase):
        add_controls(state, spec, work / "with-controls.safetensors")
        state.unlink()
        state, spec = work / "with-controls.safetensors", with_controls(spec)
    record = RunRecord(settings=settings, spec=spec, text_encoder=folder_digest(text_encoder))
    run = RunState.begin(folder, record, state, reference_of(state))
    state.unlink()  # the checkpoint holds a link to it
    return run
