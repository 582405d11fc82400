"""The spool: everything may happen twice, after a kill too, and no site reaches another's task."""

import hashlib
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from federation import METRICS, SMALL_SPEC, make_plan, small_state
from mammofed_server import mailbox as mailbox_module
from mammofed_server.mailbox import Mailbox, Outcome, RestartUpload, Upload
from mammofed_server.spool import NotNow
from mammofed_shared.errors import ProtocolError, RefusalCode
from mammofed_shared.protocol.plan import PayloadReference, Plan
from small_counts import TOLD

CHUNK = 50


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(small_state(tmp_path / "state"))


@pytest.fixture
def mailbox(tmp_path: Path, plan: Plan) -> Mailbox:
    return _offering(tmp_path, plan)


def _offering(folder: Path, plan: Plan) -> Mailbox:
    mailbox = Mailbox(folder / "spool", SMALL_SPEC)
    mailbox.put(plan, folder / "state")
    return mailbox


def _upload(plan: Plan, reference: PayloadReference | None, offset: int = 0, **metrics: float) -> Upload:
    return Upload(task_id=plan.task_id, payload=reference, metrics={**METRICS, **metrics}, offset=offset)


def _chunks(path: Path, offset: int = 0) -> Iterator[bytes]:
    raw = path.read_bytes()
    for start in range(offset, len(raw), CHUNK):
        yield raw[start : start + CHUNK]


def _hand_in(mailbox: Mailbox, plan: Plan, folder: Path, value: float = 2.0) -> Outcome:
    reference = small_state(folder / "update", value)
    return mailbox.receive(plan.site, _upload(plan, reference), _chunks(folder / "update"))


def _cut(path: Path, after: int) -> Iterator[bytes]:
    """As ``_chunks``, but the connection is lost."""
    yield path.read_bytes()[:after]


# ── idempotence ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_update_that_is_sent_again_gets_the_first_verdict(tmp_path: Path, mailbox: Mailbox, plan: Plan) -> None:
    first = _hand_in(mailbox, plan, tmp_path)
    assert first.refusal is None
    again = mailbox.receive(plan.site, _upload(plan, None), iter([b"other bytes"]))
    assert again == first
    assert mailbox.offset(plan.site, plan.task_id) is None, "there is a verdict"


def test_a_plan_that_is_put_again_stays_one(tmp_path: Path, mailbox: Mailbox, plan: Plan) -> None:
    mailbox.put(plan, tmp_path / "state")
    assert mailbox.next_plan("mayo", 0) == plan
    outcome = _hand_in(mailbox, plan, tmp_path)
    mailbox.put(plan, tmp_path / "state")
    assert mailbox.next_plan("mayo", 0) is None, "a task that ended is not offered again"
    assert mailbox.wait([plan.task_id], 0) == [outcome]


def test_a_failure_that_is_said_twice_is_one(mailbox: Mailbox, plan: Plan) -> None:
    mailbox.fail("mayo", plan.task_id, RefusalCode.NO_DATA)
    mailbox.fail("mayo", plan.task_id, RefusalCode.WORKER_DIED)
    assert [outcome.refusal for outcome in mailbox.wait([plan.task_id], 0)] == ["NO_DATA"]


def test_a_refused_update_is_not_taken_in_when_a_better_one_comes(tmp_path: Path, mailbox: Mailbox, plan: Plan) -> None:
    bad = small_state(tmp_path / "bad", **{"layer.weight": np.full((4, 3), np.nan, np.float32)})
    assert mailbox.receive("mayo", _upload(plan, bad), _chunks(tmp_path / "bad")).refusal == "NOT_FINITE"
    assert _hand_in(mailbox, plan, tmp_path).refusal == "NOT_FINITE"
    assert list(mailbox.task_folder(plan.task_id).iterdir()) == [mailbox.task_folder(plan.task_id) / "outcome.json"]


def test_a_task_that_is_forgotten_can_be_done_again(tmp_path: Path, mailbox: Mailbox, plan: Plan) -> None:
    mailbox.fail("mayo", plan.task_id, RefusalCode.NO_DATA)
    mailbox.forget(plan.task_id)
    assert mailbox.outcome(plan.task_id) is None
    mailbox.put(plan, tmp_path / "state")
    assert _hand_in(mailbox, plan, tmp_path).refusal is None


# ── after a kill ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_restarted_mailbox_still_has_the_verdict(tmp_path: Path, mailbox: Mailbox, plan: Plan) -> None:
    outcome = _hand_in(mailbox, plan, tmp_path)
    restarted = _offering(tmp_path, plan)
    assert restarted.wait([plan.task_id], 0) == [outcome]
    assert restarted.receive("mayo", _upload(plan, None), iter(())) == outcome


def test_bytes_that_arrived_before_a_kill_are_kept(tmp_path: Path, mailbox: Mailbox, plan: Plan) -> None:
    reference = small_state(tmp_path / "update", 2.0)
    with pytest.raises(ProtocolError, match=f"upload ended after 120 of {reference.size} bytes"):
        mailbox.receive("mayo", _upload(plan, reference), _cut(tmp_path / "update", 120))
    restarted = _offering(tmp_path, plan)
    assert restarted.offset("mayo", plan.task_id) == 120
    outcome = restarted.receive("mayo", _upload(plan, reference, 120), _chunks(tmp_path / "update", 120))
    assert outcome.refusal is None
    assert restarted.update_path(plan.task_id).read_bytes() == (tmp_path / "update").read_bytes()


def test_an_update_whose_verdict_a_kill_took_is_judged_again(
    tmp_path: Path, mailbox: Mailbox, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(mailbox_module, "write_whole", die)  # after the rename, before the verdict
        with pytest.raises(KeyboardInterrupt):
            _hand_in(mailbox, plan, tmp_path)
    assert mailbox.update_path(plan.task_id).exists() and mailbox.outcome(plan.task_id) is None
    restarted = _offering(tmp_path, plan)
    size = restarted.offset("mayo", plan.task_id)
    assert size == (tmp_path / "update").stat().st_size, "every byte is there"
    reference = small_state(tmp_path / "update", 2.0)
    assert restarted.receive("mayo", _upload(plan, reference, size), iter(())).refusal is None


def test_a_torn_beginning_is_thrown_away_once(tmp_path: Path, mailbox: Mailbox, plan: Plan) -> None:
    (mailbox.task_folder(plan.task_id) / "update.part").write_bytes(b"\0" * 120)
    reference = small_state(tmp_path / "update", 2.0)
    with pytest.raises(RestartUpload):
        mailbox.receive("mayo", _upload(plan, reference, 120), _chunks(tmp_path / "update", 120))
    assert mailbox.offset("mayo", plan.task_id) == 0
    assert mailbox.receive("mayo", _upload(plan, reference), _chunks(tmp_path / "update")).refusal is None


def test_bytes_that_turned_on_their_way_are_asked_for_again_once(tmp_path: Path, mailbox: Mailbox, plan: Plan) -> None:
    reference = small_state(tmp_path / "update", 2.0)
    damaged = [b"\0" * len(chunk) for chunk in _chunks(tmp_path / "update")]
    with pytest.raises(RestartUpload):
        mailbox.receive("mayo", _upload(plan, reference), damaged)
    assert mailbox.offset("mayo", plan.task_id) == 0
    assert mailbox.receive("mayo", _upload(plan, reference), damaged).refusal == "DIGEST_MISMATCH"


def test_an_upload_may_begin_again_before_where_the_spool_ends(tmp_path: Path, mailbox: Mailbox, plan: Plan) -> None:
    (mailbox.task_folder(plan.task_id) / "update.part").write_bytes(b"\0" * 120)
    assert _hand_in(mailbox, plan, tmp_path).refusal is None


def test_an_upload_with_a_gap_is_not_allowed(tmp_path: Path, mailbox: Mailbox, plan: Plan) -> None:
    reference = small_state(tmp_path / "update", 2.0)
    with pytest.raises(ProtocolError, match="begins at byte 9, but 0 are held"):
        mailbox.receive("mayo", _upload(plan, reference, 9), _chunks(tmp_path / "update", 9))


# ── quotas ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_update_that_announces_too_much_is_refused_before_a_byte_is_kept(mailbox: Mailbox, plan: Plan) -> None:
    size = plan.state.size + mailbox_module.MAX_OVERHEAD_BYTES + 1

    def endless() -> Iterator[bytes]:
        pytest.fail("not a byte may be asked for")
        yield b""

    outcome = mailbox.receive("mayo", _upload(plan, PayloadReference(digest="0" * 64, size=size)), endless())
    assert outcome.refusal == "TOO_LARGE"
    assert not (mailbox.task_folder(plan.task_id) / "update.part").exists()


def test_an_update_that_sends_more_than_it_announced_is_cut_and_refused(mailbox: Mailbox, plan: Plan) -> None:
    sent = []

    def endless() -> Iterator[bytes]:
        while True:
            sent.append(CHUNK)
            yield b"\0" * CHUNK

    outcome = mailbox.receive("mayo", _upload(plan, PayloadReference(digest="0" * 64, size=2 * CHUNK)), endless())
    assert outcome.refusal == "TOO_LARGE"
    assert len(sent) == 3
    assert not (mailbox.task_folder(plan.task_id) / "update.part").exists()


def test_a_second_upload_of_an_update_waits_for_the_first(tmp_path: Path, mailbox: Mailbox, plan: Plan) -> None:
    reference = small_state(tmp_path / "update", 2.0)
    begun, go_on = threading.Event(), threading.Event()
    outcomes: list[Outcome] = []

    def slow() -> Iterator[bytes]:
        begun.set()
        assert go_on.wait(10)
        yield from _chunks(tmp_path / "update")

    first = threading.Thread(target=lambda: outcomes.append(mailbox.receive("mayo", _upload(plan, reference), slow())))
    first.start()
    assert begun.wait(10)
    with pytest.raises(NotNow, match="still open"):
        mailbox.receive("mayo", _upload(plan, reference), _chunks(tmp_path / "update"))
    go_on.set()
    first.join(10)
    assert [outcome.refusal for outcome in outcomes] == [None]


# ── whose task it is ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "task_id",
    [
        "",
        "/",
        "../../../mayo/train",
        "a/b/../mayo/train",
        "test/r0001/v00001/mayo/..",
        "test/r0001/v00001/mayo/train/..",
        "test/r0001/v00001/mayo/train\0",
        "test/r0001/v00001/mayo/" + "x" * 5000,
        "test" * 2000 + "/r0001/v00001/mayo/train",
        "/etc/r0001/mayo/train",
        "test/r0001/v00001/central/train",
        "test/r0001/v00001/MAYO/train",
    ],
)
def test_a_task_that_is_not_a_sites_own_is_refused_without_looking(mailbox: Mailbox, task_id: str) -> None:
    calls = (
        lambda: mailbox.offset("mayo", task_id),
        lambda: mailbox.state_of("mayo", task_id),
        lambda: mailbox.fail("mayo", task_id, RefusalCode.NO_DATA),
        lambda: mailbox.receive("mayo", Upload(task_id, None, METRICS, 0), iter(())),
    )
    for call in calls:
        with pytest.raises(ProtocolError):
            call()
    assert not mailbox.is_open("mayo", task_id)


def test_another_sites_open_task_is_out_of_reach(mailbox: Mailbox, plan: Plan) -> None:
    assert mailbox.next_plan("central", 0) is None
    assert mailbox.is_open("mayo", plan.task_id) and not mailbox.is_open("central", plan.task_id)
    for call in (
        lambda: mailbox.state_of("central", plan.task_id),
        lambda: mailbox.offset("central", plan.task_id),
        lambda: mailbox.fail("central", plan.task_id, RefusalCode.NO_DATA),
        lambda: mailbox.receive("central", _upload(plan, plan.state), iter(())),
    ):
        with pytest.raises(ProtocolError):
            call()
    assert mailbox.outcome(plan.task_id) is None


def test_anothers_verdict_is_out_of_reach(tmp_path: Path, mailbox: Mailbox, plan: Plan) -> None:
    _hand_in(mailbox, plan, tmp_path)
    with pytest.raises(ProtocolError, match="not its own"):
        mailbox.offset("central", plan.task_id)


def test_every_task_of_a_schedule_is_one_that_the_spool_knows(tmp_path: Path) -> None:
    mailbox = Mailbox(tmp_path / "spool", SMALL_SPEC)
    for visit, kind in ((0, "evaluate"), (1, "train"), (99_999, "train")):
        plan = make_plan(small_state(tmp_path / "state"), visit=visit, kind=kind)
        mailbox.put(plan, tmp_path / "state")
        mailbox.fail("mayo", plan.task_id, RefusalCode.NO_DATA)
        assert mailbox.offset("mayo", plan.task_id) is None


# ── what kind of answer ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_training_visit_without_tensors_is_refused(mailbox: Mailbox, plan: Plan) -> None:
    assert mailbox.receive("mayo", _upload(plan, None), iter(())).refusal == "MALFORMED_PAYLOAD"


def test_an_evaluation_with_tensors_is_refused(tmp_path: Path) -> None:
    plan = make_plan(small_state(tmp_path / "state"), kind="evaluate")
    mailbox = _offering(tmp_path, plan)
    upload = Upload(task_id=plan.task_id, payload=plan.state, metrics={"auroc/mass": 0.5}, offset=0)
    assert mailbox.receive("mayo", upload, _chunks(tmp_path / "state")).refusal == "TENSOR_NAMES"


def test_an_evaluation_ends_with_its_numbers(tmp_path: Path) -> None:
    plan = make_plan(small_state(tmp_path / "state"), kind="evaluate")
    mailbox = _offering(tmp_path, plan)
    outcome = mailbox.receive("mayo", Upload(plan.task_id, None, {"auroc/mass": 0.5}, 0), iter(()))
    assert (outcome.refusal, outcome.payload, outcome.metrics) == (None, None, {"auroc/mass": 0.5})


def test_a_query_ends_with_protected_counts_and_has_no_state(tmp_path: Path) -> None:
    plan = make_plan(None, kind="query")
    mailbox = Mailbox(tmp_path / "spool", SMALL_SPEC)
    mailbox.put(plan, None)
    assert mailbox.next_plan("mayo", 0) == plan
    with pytest.raises(ProtocolError, match="the state of a query, which has none"):
        mailbox.state_of("mayo", plan.task_id)
    outcome = mailbox.receive("mayo", Upload(plan.task_id, None, TOLD, 0), iter(()))
    assert (outcome.refusal, outcome.payload, outcome.metrics) == (None, None, TOLD)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"num_images_by_vendor/jane-doe": 5.0}, "METRIC_NOT_ALLOWED"),
        ({"num_images": -5.0}, "METRIC_NOT_ALLOWED"),
        ({"num_images": math.nan}, "METRIC_NOT_ALLOWED"),
        ({"num_images": 252.0}, "METRIC_NOT_ALLOWED"),
    ],
)
def test_a_query_that_brings_anything_else_is_refused(tmp_path: Path, changed: dict[str, float], code: str) -> None:
    plan = make_plan(None, kind="query")
    mailbox = Mailbox(tmp_path / "spool", SMALL_SPEC)
    mailbox.put(plan, None)
    upload = Upload(plan.task_id, None, {**TOLD, **changed}, 0)
    assert mailbox.receive("mayo", upload, iter(())).refusal == code


def test_a_query_that_brings_tensors_is_refused(tmp_path: Path) -> None:
    plan = make_plan(None, kind="query")
    mailbox = Mailbox(tmp_path / "spool", SMALL_SPEC)
    mailbox.put(plan, None)
    upload = Upload(plan.task_id, small_state(tmp_path / "update"), TOLD, 0)
    assert mailbox.receive("mayo", upload, _chunks(tmp_path / "update")).refusal == "TENSOR_NAMES"


def test_bytes_that_are_no_payload_are_refused(tmp_path: Path, mailbox: Mailbox, plan: Plan) -> None:
    raw = b"\xff" * 100
    reference = PayloadReference(digest=hashlib.sha256(raw).hexdigest(), size=100)
    assert mailbox.receive("mayo", _upload(plan, reference), iter([raw])).refusal == "MALFORMED_PAYLOAD"
    assert not mailbox.update_path(plan.task_id).exists()


# ── waiting ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_site_that_waits_gets_its_plan_when_it_is_put(tmp_path: Path, plan: Plan) -> None:
    mailbox = Mailbox(tmp_path / "spool", SMALL_SPEC)
    got: list[Plan | None] = []
    waiting = threading.Thread(target=lambda: got.append(mailbox.next_plan("mayo", 10)))
    waiting.start()
    mailbox.put(plan, tmp_path / "state")
    waiting.join(10)
    assert got == [plan]


def test_closing_withdraws_every_plan_and_wakes_who_waits(mailbox: Mailbox, plan: Plan) -> None:
    got: list[Plan | None] = []
    waiting = threading.Thread(target=lambda: got.append(mailbox.next_plan("central", 30)))
    waiting.start()
    mailbox.close()
    waiting.join(10)
    assert got == [None]
    assert not mailbox.is_open("mayo", plan.task_id)
    assert mailbox.wait([plan.task_id], 30) == []


def test_an_update_whose_plan_was_withdrawn_meanwhile_changes_nothing(
    tmp_path: Path, mailbox: Mailbox, plan: Plan
) -> None:
    reference = small_state(tmp_path / "update", 2.0)

    def withdrawn() -> Iterator[bytes]:
        mailbox.close()
        yield from _chunks(tmp_path / "update")

    with pytest.raises(ProtocolError, match="withdrawn"):
        mailbox.receive("mayo", _upload(plan, reference), withdrawn())
    assert mailbox.outcome(plan.task_id) is None
