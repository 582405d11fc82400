"""How many updates have left for a run, by this site's own count.

<site folder>/released-visits/<run>.json    task ids of the training visits whose update was released
"""

import json
from pathlib import Path

from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.files import write_whole
from mammofed_shared.protocol.plan import Plan


def visits_of(folder: Path, run: str) -> frozenset[str]:
    """Task ids of the training visits whose update was released for a run.

    Raises:
        Refused: POLICY, the count cannot be read.
    """
    path = _path(folder, run)
    try:
        return frozenset(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else frozenset()
    except (OSError, ValueError) as error:
        raise Refused(
            RefusalCode.POLICY,
            "the count of this run's updates cannot be read: bring `released-visits` back from a backup, or remove the "
            "damaged file, so that the count begins anew",
        ) from error


def count_visit(folder: Path, plan: Plan) -> None:
    """Count a training visit whose update is about to leave; one that leaves again is counted once."""
    known = visits_of(folder, plan.run)
    if plan.task_id not in known:
        write_whole(_path(folder, plan.run), json.dumps(sorted({*known, plan.task_id}), indent=1), mode=0o600)


def _path(folder: Path, run: str) -> Path:
    return folder / "released-visits" / f"{run}.json"
