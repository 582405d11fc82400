"""Makes a run's first state in a process of its own, so that the coordinator itself never loads torch."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mammofed_server.controls import add_controls, with_controls
from mammofed_server.run_state import RunRecord, RunState
from mammofed_shared.config.features import ReadsFeatures
from mammofed_shared.config.frozen_encoder import encoder_digest, read_encoder
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.text_encoder import folder_digest, locate_text_encoder
from mammofed_shared.errors import ConfigurationError, StateError
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
        ConfigurationError: the text encoder is not here, and cannot be fetched; or the frozen model is not here, or not
            the one that the settings describe.
        StateError: the model could not be made; the process's own words stand above it on standard error.
    """
    folder = settings.server.folder
    work = folder / "initial"
    work.mkdir(parents=True, exist_ok=True)
    text_encoder = locate_text_encoder(settings.text_encoder) if settings.text_encoder is not None else None
    _check_encoder(settings)
    request = {
        "task": settings.task.model_dump(mode="json"),
        "text_encoder": str(text_encoder) if text_encoder is not None else None,
        "seed": settings.seed,
    }
    write_whole(work / "request.json", json.dumps(request))
    if not make_state(work):
        raise StateError("the run's first state could not be made; see the message above")
    state = work / "state.safetensors"
    spec = TaskSpec.model_validate_json((work / "spec.json").read_text(encoding="utf-8"))
    if any(phase.has_controls for phase in settings.schedule.each_phase):
        add_controls(state, spec, work / "with-controls.safetensors")
        state.unlink()
        state, spec = work / "with-controls.safetensors", with_controls(spec)
    record = RunRecord(
        settings=settings,
        spec=spec,
        text_encoder=folder_digest(text_encoder) if text_encoder is not None else None,
        encoder=encoder_digest(settings.encoder) if settings.encoder is not None else None,
    )
    run = RunState.begin(folder, record, state, reference_of(state))
    state.unlink()  # the checkpoint holds a link to it
    return run


def _check_encoder(settings: RunSettings) -> None:
    """Refuse a frozen model that the run's settings do not fit: a site would, after the run has begun."""
    if settings.encoder is None:
        return
    found = read_encoder(settings.encoder)
    if found.preprocessing.digest != settings.preprocessing.digest:
        raise ConfigurationError(
            f"preprocessing: the model in {settings.encoder} was trained on images of other settings: "
            f"{found.preprocessing.model_dump_json()}. Give the run the same"
        )
    task = settings.task
    if isinstance(task, ReadsFeatures) and task.encoder_features != (width := found.width_of(task.features)):
        raise ConfigurationError(
            f"task.encoder_features: the run says {task.encoder_features}, the model in {settings.encoder} gives "
            f"vectors of {width}"
        )
