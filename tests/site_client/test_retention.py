"""A site's disk holds what its run goes on from, and of a finished run the scores that stay there."""

from pathlib import Path

import pytest

from bare_site import bare_site
from federation import make_plan
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.protocol.plan import PayloadReference, Plan
from mammofed_site.retention import remove_finished_run, remove_old_visits
from mammofed_site.visit import visit_folder

STATE = PayloadReference(digest="0" * 64, size=1)


def _plan(visit: int, kind: str = "train", **changes: object) -> Plan:
    return make_plan(STATE, visit=visit, kind=kind).model_copy(update=changes)


@pytest.fixture
def settings(tmp_path: Path) -> SiteSettings:
    """A site with three training visits, the evaluations after the first two, and a visit of another run."""
    settings = bare_site(tmp_path / "mayo")
    plans = [_plan(visit) for visit in (1, 2, 3)] + [_plan(visit, "evaluate") for visit in (1, 2)]
    other = _plan(1, task_id="other/r0001/v00001/mayo/train", run="other")
    for plan in [*plans, other]:
        folder = visit_folder(settings, plan.task_id)
        (folder / "result").mkdir(parents=True)
        (folder / "state.safetensors").write_text("a state")
        (folder / "result/scores.csv").write_text("exam,score")
    return settings


def _left(settings: SiteSettings) -> set[str]:
    folder = settings.folder / "visits"
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


OTHER_RUN = {"other_r0001_v00001_mayo_train/state.safetensors", "other_r0001_v00001_mayo_train/result/scores.csv"}
SCORES = {f"test_r0001_v0000{visit}_mayo_evaluate/result/scores.csv" for visit in (1, 2)}


def test_old_visits_go_but_not_those_that_training_goes_on_from(settings: SiteSettings) -> None:
    remove_old_visits(settings, _plan(3, moments_from=_plan(2).task_id))

    needed = {f"test_r0001_v0000{visit}_mayo_train" for visit in (2, 3)}
    assert {name.partition("/")[0] for name in _left(settings) - SCORES - OTHER_RUN} == needed
    assert _left(settings) >= SCORES | OTHER_RUN


def test_an_evaluation_removes_nothing(settings: SiteSettings) -> None:
    before = _left(settings)
    remove_old_visits(settings, _plan(3, "evaluate"))

    assert _left(settings) == before


def test_of_a_finished_run_only_scores_are_left(settings: SiteSettings) -> None:
    remove_finished_run(settings, "test")

    assert _left(settings) == SCORES | OTHER_RUN
