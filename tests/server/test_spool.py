"""Room in the spool: reserved before a byte is kept, never refused for good, given back; a full disk ends nothing."""

import errno
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from federation import METRICS, SMALL_SPEC, make_plan, small_state
from mammofed_server import mailbox as mailbox_module
from mammofed_server import serve as serve_module
from mammofed_server import spool as spool_module
from mammofed_server.mailbox import Mailbox, Upload
from mammofed_server.spool import NotNow, bytes_of_task, spool_quota
from mammofed_shared.errors import ConfigurationError
from mammofed_shared.files import write_all
from mammofed_shared.protocol.plan import Encoding, PayloadReference, Plan
from runs import begin_small_run, small_run_settings

ONE = bytes_of_task(SMALL_SPEC, "fp32")


def _plan(folder: Path, site: str = "mayo", visit: int = 1) -> Plan:
    return make_plan(small_state(folder / "state"), site=site, visit=visit)


def _mailbox(folder: Path, *plans: Plan, quota: int | None = None) -> Mailbox:
    mailbox = Mailbox(folder / "spool", SMALL_SPEC, quota=quota)
    for plan in plans:
        mailbox.put(plan, folder / "state")
    return mailbox


def _upload(plan: Plan, reference: PayloadReference, offset: int = 0) -> Upload:
    return Upload(task_id=plan.task_id, payload=reference, metrics=METRICS, offset=offset)


def _hand_in(mailbox: Mailbox, plan: Plan, folder: Path) -> str | None:
    reference = small_state(folder / "update", 2.0)
    held = mailbox.offset(plan.site, plan.task_id)
    assert held is not None
    rest = (folder / "update").read_bytes()[held:]
    return mailbox.receive(plan.site, _upload(plan, reference, held), iter([rest])).refusal


# ── quota ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_beyond_the_quota_a_site_waits_until_room_is_made(tmp_path: Path) -> None:
    first, second = _plan(tmp_path, "mayo", 1), _plan(tmp_path, "central", 2)
    mailbox = _mailbox(tmp_path, first, second, quota=ONE + ONE // 2)
    assert _hand_in(mailbox, first, tmp_path) is None

    def unread() -> Iterator[bytes]:
        pytest.fail("not a byte may be asked for")
        yield b""

    with pytest.raises(NotNow, match="has no room for an update"):
        mailbox.receive("central", _upload(second, small_state(tmp_path / "update", 2.0)), unread())
    assert mailbox.outcome(second.task_id) is None and mailbox.is_open("central", second.task_id), "it may come again"
    mailbox.forget(first.task_id)
    assert _hand_in(mailbox, second, tmp_path) is None


def test_room_of_an_upload_that_is_under_way_is_not_given_twice(tmp_path: Path) -> None:
    first, second = _plan(tmp_path, "mayo", 1), _plan(tmp_path, "central", 2)
    mailbox = _mailbox(tmp_path, first, second, quota=ONE + ONE // 2)
    reference = small_state(tmp_path / "slow", 2.0)
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        begun.set()
        assert go_on.wait(10)
        yield (tmp_path / "slow").read_bytes()

    sending = threading.Thread(target=lambda: mailbox.receive("mayo", _upload(first, reference), slow()))
    sending.start()
    assert begun.wait(10)
    with pytest.raises(NotNow):
        _hand_in(mailbox, second, tmp_path)
    go_on.set()
    sending.join(10)
    assert mailbox.outcome(first.task_id) is not None


def test_bytes_that_are_held_already_count_once(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    mailbox = _mailbox(tmp_path, plan, quota=ONE)
    small_state(tmp_path / "update", 2.0)
    (mailbox.task_folder(plan.task_id) / "update.part").write_bytes((tmp_path / "update").read_bytes()[:100])
    assert _hand_in(mailbox, plan, tmp_path) is None


@pytest.mark.parametrize("upload", ["fp32", "delta"])
def test_a_quota_that_cannot_hold_one_turn_is_refused_at_the_start(upload: Encoding) -> None:
    one = bytes_of_task(SMALL_SPEC, upload)
    assert spool_quota(None, 3, one) is None, "no quota unless one is asked for"
    assert spool_quota(3 * one / 1e9, 3, one) == 3 * one
    with pytest.raises(ConfigurationError, match=r"spool_quota_gb.*the 3 update\(s\) of one turn"):
        spool_quota((3 * one - 1) / 1e9, 3, one)


def test_a_run_whose_turns_do_not_fit_into_the_quota_does_not_start(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path, schedule={"kind": "fedavg", "rounds": 1})
    for num_updates, is_enough in ((2, True), (1, False)):
        server = {"folder": str(tmp_path), "identity": "i", "spool_quota_gb": num_updates * ONE / 1e9}
        settings = small_run_settings(tmp_path, server=server, schedule={"kind": "fedavg", "rounds": 1})
        if is_enough:
            assert serve_module._spool_quota(settings, run) == 2 * ONE
        else:
            with pytest.raises(ConfigurationError, match=r"the 2 update\(s\) of one turn"):
                serve_module._spool_quota(settings, run)


# ── a full disk ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_disk_that_is_nearly_full_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = _plan(tmp_path)
    mailbox = _mailbox(tmp_path, plan)
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(spool_module.shutil, "disk_usage", lambda _: usage._replace(free=ONE - 1))
        with pytest.raises(NotNow):
            _hand_in(mailbox, plan, tmp_path)
    assert _hand_in(mailbox, plan, tmp_path) is None


def test_a_disk_that_fills_in_the_midst_of_an_upload_keeps_what_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = _plan(tmp_path)
    mailbox = _mailbox(tmp_path, plan)
    reference = small_state(tmp_path / "update", 2.0)
    raw = (tmp_path / "update").read_bytes()
    calls = []

    def full_at_the_second(file: Any, data: bytes) -> None:
        calls.append(data)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(file, data)

    with monkeypatch.context() as patched:
        patched.setattr(spool_module, "write_all", full_at_the_second)
        with pytest.raises(NotNow, match="disk is full"):
            mailbox.receive("mayo", _upload(plan, reference), iter([raw[:120], raw[120:]]))
    assert mailbox.offset("mayo", plan.task_id) == 120
    assert _hand_in(mailbox, plan, tmp_path) is None


@pytest.mark.parametrize("upload", ["fp32", "delta"])
def test_a_verdict_that_finds_no_room_is_given_when_the_header_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upload: Encoding
) -> None:
    from mammofed_shared.protocol.encoding import encode, encoded_names

    plan = _plan(tmp_path).model_copy(update={"upload": upload})
    mailbox = _mailbox(tmp_path, plan)
    small_state(tmp_path / "trained", 2.0)
    reference = encode(tmp_path / "trained", tmp_path / "sent", encoded_names(SMALL_SPEC, upload))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(mailbox_module, "write_whole", full)
        with pytest.raises(NotNow):
            mailbox.receive("mayo", _upload(plan, reference), iter([(tmp_path / "sent").read_bytes()]))
    assert mailbox.offset("mayo", plan.task_id) == reference.size, "every byte is there"
    outcome = mailbox.receive("mayo", _upload(plan, reference, reference.size), iter(()))
    assert outcome.refusal is None and outcome.payload == reference


# ── orphans ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_earlier_tasks_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    plan, other = _plan(tmp_path), "other/r0001/v00001/mayo/train"
    mailbox = _mailbox(tmp_path, plan)
    old, needed = "test/r0001/v00000/mayo/train", "test/r0001/v00002/central/train"
    for task_id in (old, needed, other):
        mailbox.task_folder(task_id).mkdir()
        (mailbox.task_folder(task_id) / "update.part").write_bytes(b"0" * 10)
    (tmp_path / "spool" / "notes").mkdir()
    mailbox.clear(lambda task_id: task_id == needed)
    left = {path.name for path in (tmp_path / "spool").iterdir()}
    assert left == {plan.task_id.replace("/", "_"), needed.replace("/", "_"), "notes"}
