"""Workers that do what a text says instead of training: for tests of the parent's side of a visit.

They run in a real worker process, behind the real ``worker_entry.run``. The text is that of the file `behaviour` in the
site's folder, else the state's; a query without one is answered with ``small_counts``. As a command,
``fake_workers.py ARGS…`` is `site-client ARGS…` with such workers.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mammofed_shared.errors import RefusalCode
from mammofed_shared.protocol.plan import Progress
from mammofed_shared.training.probe_figures import FIGURES_FILE, ProbeFigures
from mammofed_site import cli, visit, worker_entry
from mammofed_site.disclosure import COUNTED_FILE
from small_counts import COUNTS


def run(folder: str, rank: int, connection: Connection) -> None:
    """As ``worker_entry.run``, with ``do_visit`` of this module."""
    worker_entry.HEAVY_MODULE = __name__
    worker_entry.run(folder, rank, connection)


ENTRY = SimpleNamespace(run=run, HEAVY_MODULE="mammofed_site.visit")
"""Takes the place of ``worker_entry`` in ``mammofed_site.visit``; what is loaded beforehand is light, too."""


FIGURES = ProbeFigures(
    device="CPU",
    is_gpu=False,
    memory_gb=16.0,
    peak_memory_gb=(2.0,),
    micro_batch=16,
    num_steps=100,
    num_samples=160,
    step_s=(2.0,) * 10,
    wait_s=0.2,
    warm_up_s=10.0,
    start_s=5.0,
    model_s=4.0,
    checkpoint_s=1.0,
    validation_s=20.0,
    weights_bytes=10**9,
    moments_bytes=2 * 10**9,
    checkpoint_bytes=3 * 10**9,
)
"""What a probe answers."""


def do_visit(folder: str, rank: int, report: Callable[[Progress], None]) -> RefusalCode | None:
    """Behave as the text in the state's file says."""
    order = json.loads((Path(folder) / "visit.json").read_text())
    state = order["state"]
    said = Path(order["log_file"]).parent / "behaviour"
    behaviour = said.read_text() if said.exists() else Path(state).read_text() if state else "counts"
    (Path(folder) / ("pid" if rank == 0 else f"pid-{rank}")).write_text(str(os.getpid()))
    report(Progress(epoch=1, step=2, num_steps=3, loss=0.5, samples_per_s=4.0))
    while behaviour == "waits" and state:
        time.sleep(0.02)
        behaviour = said.read_text()
    code = _failure(behaviour, order, Path(folder), rank)
    if code is None:
        _finish(behaviour, order, Path(folder))
    return code


def _failure(behaviour: str, order: dict[str, Any], folder: Path, rank: int) -> RefusalCode | None:
    is_first = rank == 0
    if behaviour == "is cut":
        (folder / "checkpoint.safetensors").write_text("half way")
    if behaviour in ("is killed", "is cut") or (behaviour == "the second is killed" and not is_first):
        if not is_first:  # when the first one is at its work, too
            _until_there(folder / "pid")
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour in ("never ends", "the second is killed"):
        time.sleep(600)
    if behaviour == "trains until it pauses" and order["state"]:
        _until_there(folder / "pause")
        (folder / "checkpoint.safetensors").write_text("half way")
        return RefusalCode.OUT_OF_HOURS
    if behaviour == "has no data":
        return RefusalCode.NO_DATA
    if behaviour == "raises":
        raise RuntimeError("a bug")
    if behaviour.startswith("fits ") and _in_use(order) > int(behaviour.removeprefix("fits ")):
        return RefusalCode.OUT_OF_MEMORY
    return None


def _finish(behaviour: str, order: dict[str, Any], folder: Path) -> None:
    out = folder / "unfinished"
    if order["is_probe"]:
        figures = FIGURES.model_copy(update={"micro_batch": _in_use(order)})
        (out / FIGURES_FILE).write_text(figures.model_dump_json())
        return
    if order["state"] is None:
        (out / COUNTED_FILE).write_text(COUNTS.model_dump_json())
        return
    if behaviour == "gives back what came":
        shutil.copyfile(order["state"], out / "update.safetensors")
    elif behaviour == "tells how it begins":
        began = "in the middle" if (folder / "checkpoint.safetensors").exists() else "anew"
        (out / "update.safetensors").write_text(began)
    else:
        (out / "update.safetensors").write_text(behaviour)
    (out / "metrics.json").write_text(json.dumps({"num_exams": 10.0, "num_samples": 20.0}))
    (out / "moments.safetensors").write_text("moments")


def _in_use(order: dict[str, Any]) -> int:
    """Samples that a process computes at once."""
    worker = order["worker"]
    return int(worker["micro_batch"] or -(-order["plan"]["task"]["batch_size"] // worker["processes"]))


def _until_there(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


if __name__ == "__main__":
    import fake_workers

    visit.worker_entry = fake_workers.ENTRY  # type: ignore[assignment]
    cli.main()
