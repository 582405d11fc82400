"""What a site keeps of its visits, and for how long.

While a run goes on: moments, residual and control variate of the visit that the next one goes on from. Once it is
finished: the scores of its evaluations, which never left, and nothing else.
"""

import shutil
from pathlib import Path

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.protocol.plan import Plan
from mammofed_site.privacy import FILTERED
from mammofed_site.transfer import ENCODED_FILE, WHOLE_STATE_FILE
from mammofed_site.visit import visit_folder


def remove_large_files(folder: Path) -> None:
    """Remove from a visit's folder what is not needed once its update was taken in; moments and residual stay."""
    for name in ("state.safetensors", WHOLE_STATE_FILE, "result/update.safetensors", f"result/{ENCODED_FILE}"):
        (folder / name).unlink(missing_ok=True)
    for filtered in (folder / "result").glob(FILTERED):
        filtered.unlink(missing_ok=True)


def remove_old_visits(settings: SiteSettings, plan: Plan) -> None:
    """Remove what nothing will ask for again of the run's earlier visits, now that the plan's training begins."""
    keep = {visit_folder(settings, name).name for name in (plan.task_id, plan.moments_from) if name}
    for old in _visits_of(settings, plan.run) if plan.kind == "train" else ():
        if old.name not in keep:
            _keep_scores(old)


def remove_finished_run(settings: SiteSettings, run: str) -> None:
    """Remove what the visits of a finished run have left: no run goes on from it."""
    for old in _visits_of(settings, run):
        _keep_scores(old)


def _visits_of(settings: SiteSettings, run: str) -> list[Path]:
    return list((settings.folder / "visits").glob(f"{run}_r*"))


def _keep_scores(folder: Path) -> None:
    if folder.name.endswith("_train"):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        remove_large_files(folder)
