"""How many samples a process of this site computes at once: as its YAML says, or as its memory has taught.

<site folder>/micro-batch.json    settings of the run and of the worker → the number; remove it to try again
"""

import hashlib
import json
from pathlib import Path

from mammofed_shared.config.site import SiteSettings, WorkerSettings
from mammofed_shared.files import write_whole
from mammofed_shared.protocol.plan import Plan


def known_micro_batch(settings: SiteSettings, plan: Plan) -> int | None:
    """The number that the YAML names, or a smaller one that an earlier visit has found; None: a process's share."""
    found = _read(_path(settings)).get(settings_key(settings, plan))
    return min((number for number in (settings.worker.micro_batch, found) if number), default=None)


def half_micro_batch(worker: WorkerSettings, plan: Plan) -> int | None:
    """Half of the number in use; None where there is nothing to halve."""
    in_use = worker.micro_batch or -(-plan.task.batch_size // worker.processes)
    return in_use // 2 if in_use > 1 else None


def note_micro_batch(settings: SiteSettings, plan: Plan, micro_batch: int) -> None:
    """Remember what fits, for visits of the same settings on the same worker group."""
    path = _path(settings)
    write_whole(path, json.dumps(_read(path) | {settings_key(settings, plan): micro_batch}, indent=1))


def settings_key(settings: SiteSettings, plan: Plan) -> str:
    """One word for what decides how much memory and time a step takes: of the run, and of this site's workers."""
    worker = settings.worker
    what = [plan.task.model_dump_json(), plan.preprocessing, worker.device, worker.processes, worker.distribution]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _path(settings: SiteSettings) -> Path:
    return settings.folder / "micro-batch.json"


def _read(path: Path) -> dict[str, int]:
    return {} if not path.exists() else {str(key): int(number) for key, number in json.loads(path.read_text()).items()}
