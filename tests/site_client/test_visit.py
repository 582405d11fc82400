"""A visit seen from the light parent: its worker ends well, says why not, dies, or is stopped."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

import fake_workers
from bare_site import bare_site
from federation import make_plan
from mammofed_shared.config.pretrain import OptimizerSettings, PretrainSettings
from mammofed_shared.config.site import SiteSettings, WorkerSettings
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.protocol.plan import PayloadReference, Plan, Progress
from mammofed_site import visit
from mammofed_site.disclosure import Counts
from mammofed_site.visit import (
    Monitor,
    VisitCancelled,
    forget_result,
    make_order,
    run_visit,
    visit_folder,
)
from small_counts import COUNTS

LONGEST_S = 60.0


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteSettings:
    monkeypatch.setattr(visit, "worker_entry", fake_workers.ENTRY)
    return bare_site(tmp_path / "site")


def _plan(number: int = 1, digest: str = "0", **changes: object) -> Plan:
    return make_plan(PayloadReference(digest=digest * 64, size=1), visit=number).model_copy(update=changes)


def _do(settings: SiteSettings, plan: Plan, behaviour: str, monitor: Monitor | None = None) -> Path:
    state = settings.folder / f"{behaviour}.safetensors"
    state.parent.mkdir(parents=True, exist_ok=True)
    state.write_text(behaviour)
    return run_visit(settings, plan, state, monitor or Monitor())


def _worker(settings: SiteSettings, plan: Plan) -> int:
    return int((visit_folder(settings, plan.task_id) / "pid").read_text())


def _is_gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def _until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + LONGEST_S
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_a_visit_gives_its_result_and_says_how_far_it_is(settings: SiteSettings) -> None:
    monitor = Monitor()
    result = _do(settings, _plan(), "first", monitor)
    assert {path.name for path in result.iterdir()} == {"update.safetensors", "metrics.json", "moments.safetensors"}
    assert monitor.progress == Progress(epoch=1, step=2, num_steps=3, loss=0.5, samples_per_s=4.0)
    assert not (result.parent / "unfinished").exists()


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ("is killed", RefusalCode.WORKER_DIED),
        ("raises", RefusalCode.WORKER_DIED),
        ("has no data", RefusalCode.NO_DATA),
    ],
)
def test_a_worker_that_ends_without_an_update_gives_a_code(
    settings: SiteSettings, behaviour: str, code: RefusalCode
) -> None:
    plan = _plan()
    with pytest.raises(VisitFailed) as caught:
        _do(settings, plan, behaviour)
    assert caught.value.code is code
    assert _is_gone(_worker(settings, plan))
    assert not (visit_folder(settings, plan.task_id) / "result").exists()
    assert (_do(settings, plan, "better") / "update.safetensors").read_text() == "better", (
        "asked again, it is done again"
    )


@pytest.mark.parametrize("error", [EOFError(), ConnectionRefusedError(), BrokenPipeError()])
def test_a_visit_whose_workers_nobody_can_fork_has_failed_as_if_they_had_died(
    settings: SiteSettings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def start(process: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(ForkServerProcess, "start", start)
        with pytest.raises(VisitFailed) as caught:
            _do(settings, _plan(), "first")
    assert caught.value.code is RefusalCode.WORKER_DIED
    assert _do(settings, _plan(), "first").name == "result"


def test_when_one_process_of_two_dies_the_other_is_killed(settings: SiteSettings) -> None:
    worker = WorkerSettings(device="cpu", processes=2, distribution="ddp")
    plan, pair = _plan(), settings.model_copy(update={"worker": worker})
    with pytest.raises(VisitFailed) as caught:
        _do(pair, plan, "the second is killed")
    assert caught.value.code is RefusalCode.WORKER_DIED
    pids = [int((visit_folder(settings, plan.task_id) / name).read_text()) for name in ("pid", "pid-1")]
    assert len(set(pids)) == 2 and all(map(_is_gone, pids))


def test_a_withdrawn_visit_has_its_worker_killed(settings: SiteSettings) -> None:
    plan, monitor = _plan(), Monitor()

    def withdraw() -> None:
        _until(lambda: (visit_folder(settings, plan.task_id) / "pid").exists())
        monitor.cancelled.set()

    thread = threading.Thread(target=withdraw)
    thread.start()
    with pytest.raises(VisitCancelled):
        _do(settings, plan, "never ends", monitor)
    thread.join()
    assert _is_gone(_worker(settings, plan))


PARENT = """
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
import fake_workers
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.protocol.plan import Plan
from mammofed_site import visit

if __name__ == "__main__":
    visit.worker_entry = fake_workers.ENTRY
    settings = SiteSettings.model_validate_json(sys.argv[1])
    visit.run_visit(settings, Plan.model_validate_json(sys.argv[2]), Path(sys.argv[3]), visit.Monitor())
"""


def test_the_death_of_the_parent_ends_the_worker(settings: SiteSettings, tmp_path: Path) -> None:
    plan = _plan()
    (tmp_path / "state").write_text("never ends")
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen(
        [
            sys.executable,
            tmp_path / "parent.py",
            settings.model_dump_json(),
            plan.model_dump_json(),
            tmp_path / "state",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    pid = visit_folder(settings, plan.task_id) / "pid"
    _until(lambda: pid.exists() and bool(pid.read_text()) and parent.poll() is None)
    assert not _is_gone(_worker(settings, plan))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _until(lambda: _is_gone(_worker(settings, plan)))


# ── what is done once ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_visit_that_was_done_is_not_done_again(settings: SiteSettings) -> None:
    _do(settings, _plan(), "first")
    assert (_do(settings, _plan(), "second") / "update.safetensors").read_text() == "first"


def test_a_visit_whose_update_was_handed_in_is_done_again_when_asked(settings: SiteSettings) -> None:
    (_do(settings, _plan(), "first") / "update.safetensors").unlink()
    assert (_do(settings, _plan(), "second") / "update.safetensors").read_text() == "second"


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_new_run_with_an_old_runs_name_gets_nothing_of_the_old_one(settings: SiteSettings, kind: str) -> None:
    old = make_plan(PayloadReference(digest="0" * 64, size=1), kind=kind)
    new = make_plan(PayloadReference(digest="1" * 64, size=1), kind=kind)
    assert old.task_id == new.task_id
    _do(settings, old, "old")
    assert (_do(settings, new, "new") / "update.safetensors").read_text() == "new"


def test_a_kill_in_the_new_run_does_not_make_the_old_result_its_own(settings: SiteSettings) -> None:
    _do(settings, _plan(digest="0"), "old")
    with pytest.raises(VisitFailed):
        _do(settings, _plan(digest="1"), "is killed")
    assert (_do(settings, _plan(digest="1"), "new") / "update.safetensors").read_text() == "new"


def test_a_result_that_was_refused_is_not_sent_again(settings: SiteSettings) -> None:
    plan = _plan()
    _do(settings, plan, "refused")
    forget_result(settings, plan.task_id)
    assert (_do(settings, plan, "better") / "update.safetensors").read_text() == "better"


def test_a_query_is_counted_again_whenever_it_is_asked(settings: SiteSettings) -> None:
    plan = make_plan(None, kind="query")
    for _ in range(2):
        result = run_visit(settings, plan, None, Monitor())
        assert Counts.model_validate_json((result / "counted.json").read_text()) == COUNTS
        (result / "counted.json").write_text("of data that have changed since")


# ── where a visit goes on ───────────────────────────────────────────────────────────────────────────────────────


def test_a_checkpoint_of_a_killed_worker_is_gone_on_from_and_then_removed(settings: SiteSettings) -> None:
    plan = _plan()
    with pytest.raises(VisitFailed):
        _do(settings, plan, "is cut")
    checkpoint = visit_folder(settings, plan.task_id) / "checkpoint.safetensors"
    assert checkpoint.exists()
    assert (_do(settings, plan, "tells how it begins") / "update.safetensors").read_text() == "in the middle"
    assert not checkpoint.exists()


def test_a_new_plan_of_the_same_name_forgets_the_checkpoint(settings: SiteSettings) -> None:
    with pytest.raises(VisitFailed):
        _do(settings, _plan(digest="0"), "is cut")
    assert (_do(settings, _plan(digest="1"), "tells how it begins") / "update.safetensors").read_text() == "anew"


def test_other_data_or_a_stricter_policy_forget_what_was_made_before(settings: SiteSettings) -> None:
    plan = _plan()
    strict = settings.model_copy(update={"policy": settings.policy.model_copy(update={"least_cell": 20})})
    for changed in (strict, settings):
        with pytest.raises(VisitFailed):
            _do(settings, plan, "is cut")
        if changed is settings:
            table = settings.prepared_folder(settings.datasets[0]) / "exams.parquet"
            table.parent.mkdir(parents=True, exist_ok=True)
            table.write_bytes(b"another table")

        result = _do(changed, plan, "tells how it begins")

        assert (result / "update.safetensors").read_text() == "anew"
        forget_result(settings, plan.task_id)
    assert (_do(settings, plan, "first") / "update.safetensors").read_text() == "first"
    assert (_do(strict, plan, "second") / "update.safetensors").read_text() == "second", "a finished result, too"


def test_what_a_killed_write_left_half_is_removed(settings: SiteSettings) -> None:
    plan = _plan()
    with pytest.raises(VisitFailed):
        _do(settings, plan, "is cut")
    half = visit_folder(settings, plan.task_id) / ".checkpoint.safetensors.123.writing"
    half.write_text("half")

    _do(settings, plan, "tells how it begins")

    assert not half.exists()


# ── when memory runs out ────────────────────────────────────────────────────────────────────────────────────────


def _ordered_micro_batch(settings: SiteSettings, plan: Plan) -> int | None:
    written = (visit_folder(settings, plan.task_id) / "visit.json").read_text()
    return visit.VisitOrder.model_validate_json(written).worker.micro_batch


def test_out_of_memory_halves_the_micro_batch_until_it_fits_and_is_remembered(
    settings: SiteSettings, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = _plan(1), _plan(2)
    assert first.task.batch_size == 16
    assert (_do(settings, first, "fits 5") / "update.safetensors").exists()
    assert _ordered_micro_batch(settings, first) == 4
    assert caplog.text.count("out of memory") == 2
    caplog.clear()
    _do(settings, second, "fits 5")
    assert _ordered_micro_batch(settings, second) == 4 and not caplog.text, "it begins with what was learnt"
    other = _plan(3, task=PretrainSettings(batch_size=8))
    _do(settings, other, "first")
    assert _ordered_micro_batch(settings, other) is None, "learnt for these settings alone"


def test_where_not_even_one_sample_fits_the_visit_ends(settings: SiteSettings) -> None:
    plan = _plan()
    with pytest.raises(VisitFailed) as caught:
        _do(settings, plan, "fits 0")
    assert caught.value.code is RefusalCode.OUT_OF_MEMORY
    assert _ordered_micro_batch(settings, plan) == 1


# ── optimizer moments ───────────────────────────────────────────────────────────────────────────────────────────


def _moments(settings: SiteSettings, plan: Plan) -> Path | None:
    _do(settings, plan, "next")
    order = visit.VisitOrder.model_validate_json((visit_folder(settings, plan.task_id) / "visit.json").read_text())
    return order.moments


def test_a_visit_goes_on_from_the_moments_that_its_plan_names(settings: SiteSettings) -> None:
    first = _plan(1)
    result = _do(settings, first, "first")
    (result / "update.safetensors").unlink()
    assert _moments(settings, _plan(2, moments_from=first.task_id)) == result / "moments.safetensors"
    assert _moments(settings, _plan(3)) is None


def test_a_run_that_resets_its_moments_uses_none(settings: SiteSettings) -> None:
    first = _plan(1)
    _do(settings, first, "first")
    task = PretrainSettings(optimizer=OptimizerSettings(state="reset"))
    assert _moments(settings, _plan(2, moments_from=first.task_id, task=task)) is None


def test_moments_that_are_gone_are_said_and_not_waited_for(
    settings: SiteSettings, caplog: pytest.LogCaptureFixture
) -> None:
    assert _moments(settings, _plan(2, moments_from=_plan(1).task_id)) is None
    assert "starts with fresh ones" in caplog.text


def test_the_worker_is_told_neither_certificate_nor_address(settings: SiteSettings) -> None:
    plan = _plan()
    _do(settings, plan, "first")
    order = (visit_folder(settings, plan.task_id) / "visit.json").read_text()
    assert "127.0.0.1" not in order and str(settings.identity) not in order


def test_ctrl_c_while_a_worker_starts_is_a_ctrl_c(settings: SiteSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(process: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(visit.worker_context().Process, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _do(settings, _plan(), "done")


def test_a_site_that_lost_its_control_variate_refuses_and_one_that_never_had_any_begins_with_none(
    settings: SiteSettings,
) -> None:
    first = _plan(1, control_variates=True)
    assert make_order(settings, first, None).control is None
    second = _plan(2, control_variates=True, moments_from=first.task_id)
    with pytest.raises(VisitFailed, match=r"SETTINGS: the control variate of test/r0001/v00001/mayo/train is not in"):
        make_order(settings, second, None)
    kept = visit_folder(settings, first.task_id) / "result" / "control.safetensors"
    kept.parent.mkdir(parents=True)
    kept.write_text("kept")
    assert make_order(settings, second, None).control == kept
    assert make_order(settings, _plan(2, moments_from=first.task_id), None).control is None, "no plan asks for it"
