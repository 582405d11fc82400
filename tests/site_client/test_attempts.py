"""A worker group that dies is started again, as long as visits get further."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bare_site import bare_site
from federation import make_plan, small_state
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_site import attempts
from mammofed_site.attempts import MOST_DEATHS, run_visit_again
from mammofed_site.visit import Monitor, visit_folder


def _visit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[int, Path], None]) -> int:
    """Do a visit whose n-th attempt does ``work``; gives the number of attempts."""
    settings = bare_site(tmp_path / "mayo")
    plan = make_plan(small_state(tmp_path / "state"))
    folder = visit_folder(settings, plan.task_id)
    folder.mkdir(parents=True)
    began = 0

    def run_visit(*_: object) -> Path:
        nonlocal began
        began += 1
        work(began, folder)
        return folder / "result"

    monkeypatch.setattr(attempts, "run_visit", run_visit)
    try:
        assert run_visit_again(settings, plan, tmp_path / "state", Monitor()) == folder / "result"
    finally:
        assert began > 0
    return began


def test_a_visit_whose_workers_died_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(attempt: int, folder: Path) -> None:
        if attempt < MOST_DEATHS:
            raise VisitFailed(RefusalCode.WORKER_DIED)

    assert _visit(tmp_path, monkeypatch, work) == MOST_DEATHS


def test_a_visit_that_gets_further_each_time_is_never_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(attempt: int, folder: Path) -> None:
        if attempt <= 3 * MOST_DEATHS:
            checkpoint = folder / "checkpoint.safetensors"
            checkpoint.unlink(missing_ok=True)
            checkpoint.write_text(str(attempt))
            raise VisitFailed(RefusalCode.WORKER_DIED)

    assert _visit(tmp_path, monkeypatch, work) == 3 * MOST_DEATHS + 1


def test_a_visit_that_keeps_more_features_each_time_is_never_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(attempt: int, folder: Path) -> None:
        if attempt <= 3 * MOST_DEATHS:
            kept = tmp_path / "mayo" / "caches" / "features" / "pooled-1" / f"00-{attempt:05d}.safetensors"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text("rows")
            raise VisitFailed(RefusalCode.WORKER_DIED)

    assert _visit(tmp_path, monkeypatch, work) == 3 * MOST_DEATHS + 1


def test_a_disk_that_damages_features_again_and_again_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_attempts = 0

    def work(attempt: int, folder: Path) -> None:
        nonlocal num_attempts
        num_attempts = attempt
        kept = tmp_path / "mayo" / "caches" / "features" / "pooled-1"
        kept.mkdir(parents=True, exist_ok=True)
        for path in kept.iterdir():  # the damaged shard is removed, and computed again as another file
            path.unlink()
        (kept / f"00-{attempt:05d}.safetensors").write_text("rows")
        raise VisitFailed(RefusalCode.WORKER_DIED)

    with pytest.raises(VisitFailed):
        _visit(tmp_path, monkeypatch, work)
    assert num_attempts == MOST_DEATHS


@pytest.mark.parametrize(
    ("code", "most"), [(RefusalCode.WORKER_DIED, MOST_DEATHS), (RefusalCode.NO_DATA, 1), (RefusalCode.OUT_OF_MEMORY, 1)]
)
def test_what_another_attempt_cannot_mend_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: RefusalCode, most: int
) -> None:
    num_attempts = 0

    def work(attempt: int, folder: Path) -> None:
        nonlocal num_attempts
        num_attempts = attempt
        raise VisitFailed(code)

    with pytest.raises(VisitFailed, match=code.name):
        _visit(tmp_path, monkeypatch, work)
    assert num_attempts == most


@pytest.mark.parametrize("torn", ["update.safetensors", "metrics.json"])
def test_a_finished_result_that_the_disk_has_damaged_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: str
) -> None:
    settings = bare_site(tmp_path / "mayo")
    plan = make_plan(small_state(tmp_path / "state"))
    result = visit_folder(settings, plan.task_id) / "result"
    result.mkdir(parents=True)
    small_state(result / "update.safetensors")
    (result / "metrics.json").write_text("{}")
    left: list[bool] = []

    def run_visit(*_: object) -> Path:
        left.append(result.exists())
        return result

    monkeypatch.setattr(attempts, "run_visit", run_visit)
    run_visit_again(settings, plan, tmp_path / "state", Monitor())
    content = (result / torn).read_bytes()
    (result / torn).write_bytes(content[: len(content) // 2])
    run_visit_again(settings, plan, tmp_path / "state", Monitor())

    assert left == [True, False]
