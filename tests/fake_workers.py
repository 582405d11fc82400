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

from mammofed_shared.errors import RefusalCode
from mammofed_shared.protocol.plan import Progress
from mammofed_site import cli, visit, worker_entry
from mammofed_site.disclosure import COUNTED_FILE
from small_counts import COUNTS


def run(folder: str, rank: int, connection: Connection) -> None:
    """As ``worker_entry.run``, with ``do_visit`` of this module."""
    worker_entry.HEAVY_MODULE = __name__
    worker_entry.run(folder, rank, connection)


ENTRY = SimpleNamespace(run=run, HEAVY_MODULE="mammofed_site.visit")
"""Takes the place of ``worker_entry`` in ``mammofed_site.visit``; what is loaded beforehand is light, too."""


def do_visit(folder: str, rank: int, report: Callable[[Progress], None]) -> RefusalCode | None:
    """Behave as the text in the state's file says."""
    state = json.loads((Path(folder) / "visit.json").read_text())["state"]
    out = Path(folder) / "unfinished"
    said = Path(folder).parents[1] / "behaviour"
    behaviour = said.read_text() if said.exists() else Path(state).read_text() if state else "counts"
    (Path(folder) / "pid").write_text(str(os.getpid()))
    report(Progress(epoch=1, step=2, num_steps=3, loss=0.5, samples_per_s=4.0))
    if behaviour == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "never ends":
        time.sleep(600)
    if behaviour == "has no data":
        return RefusalCode.NO_DATA
    if behaviour == "raises":
        raise RuntimeError("a bug")
    if state is None:
        (Path(out) / COUNTED_FILE).write_text(COUNTS.model_dump_json())
        return None
    if behaviour == "gives back what came":
        shutil.copyfile(state, Path(out) / "update.safetensors")
    else:
        (Path(out) / "update.safetensors").write_text(behaviour)
    (Path(out) / "metrics.json").write_text(json.dumps({"num_exams": 10.0, "num_samples": 20.0}))
    (Path(out) / "moments.safetensors").write_text("moments")
    return None


if __name__ == "__main__":
    import fake_workers

    visit.worker_entry = fake_workers.ENTRY  # type: ignore[assignment]
    cli.main()
