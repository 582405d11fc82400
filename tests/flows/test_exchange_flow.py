"""A plan out and an update in, over real mutual TLS on 127.0.0.1."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from federation import METRICS, coordinator, make_plan, small_state
from identities import Consortium, make_consortium
from mammofed_shared.errors import RefusalCode, Unreachable
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.plan import Plan, Update
from mammofed_shared.protocol.wire import plan_from_wire
from mammofed_site.link import Link, NotWanted


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return make_consortium(tmp_path_factory.mktemp("consortium"), ["central", "mayo", "upmc"])


def _received(link: Link) -> Plan:
    return plan_from_wire(link.poll(pb.PollRequest(state=pb.READY, wait_s=5)).plan)


def test_a_plan_and_its_update_cross_and_are_accepted(tmp_path: Path, consortium: Consortium) -> None:
    state = small_state(tmp_path / "state")
    update = small_state(tmp_path / "update", 2.0)
    with coordinator(tmp_path / "spool", consortium) as server:
        plan = make_plan(state)
        server.mailbox.put(plan, tmp_path / "state")
        link = server.link(consortium, "mayo")
        assert link.hello(120, 70) == "test"
        assert _received(link) == plan
        link.fetch(plan, tmp_path / "site" / "state")
        assert (tmp_path / "site" / "state").read_bytes() == (tmp_path / "state").read_bytes()
        sent = Update(task_id=plan.task_id, payload=update, metrics=METRICS)
        assert link.submit(sent, tmp_path / "update") is None
        (outcome,) = server.mailbox.wait([plan.task_id], 5)
        assert outcome.refusal is None and outcome.payload == update and outcome.metrics == METRICS
        assert server.mailbox.update_path(plan.task_id).read_bytes() == (tmp_path / "update").read_bytes()
        link.close()


def test_a_site_never_sees_the_plan_of_another(tmp_path: Path, consortium: Consortium) -> None:
    plan = make_plan(small_state(tmp_path / "state"), site="mayo")
    with coordinator(tmp_path / "spool", consortium) as server:
        server.mailbox.put(plan, tmp_path / "state")
        link = server.link(consortium, "central")
        assert not link.poll(pb.PollRequest(state=pb.READY, wait_s=0)).HasField("plan")
        with pytest.raises(NotWanted):
            link.fetch(plan, tmp_path / "stolen")
        with pytest.raises(NotWanted):
            link.submit(Update(task_id=plan.task_id, payload=plan.state, metrics=METRICS), tmp_path / "state")
        link.close()


@pytest.mark.parametrize(
    ("replaced", "code"),
    [
        ({"layer.weight": np.full((4, 3), np.nan, np.float32)}, RefusalCode.NOT_FINITE),
        ({"layer.weight": np.zeros((3, 4), np.float32)}, RefusalCode.TENSOR_SHAPE),
        ({"layer.weight": np.zeros((4, 3), np.float64)}, RefusalCode.TENSOR_DTYPE),
        ({"patients": np.zeros(3, np.float32)}, RefusalCode.TENSOR_NAMES),
    ],
)
def test_a_bad_update_is_refused_once_with_its_reason(
    tmp_path: Path, consortium: Consortium, replaced: dict[str, object], code: RefusalCode
) -> None:
    plan = make_plan(small_state(tmp_path / "state"))
    bad = small_state(tmp_path / "update", 2.0, **replaced)
    with coordinator(tmp_path / "spool", consortium) as server:
        server.mailbox.put(plan, tmp_path / "state")
        link = server.link(consortium, "mayo")
        sent = Update(task_id=plan.task_id, payload=bad, metrics=METRICS)
        assert link.submit(sent, tmp_path / "update") is code
        (outcome,) = server.mailbox.wait([plan.task_id], 5)
        assert outcome.refusal == code.name
        assert not server.mailbox.update_path(plan.task_id).exists()
        assert link.submit(sent, tmp_path / "update") is code, "the verdict stays"
        link.close()


def test_bytes_that_do_not_match_their_digest_are_refused(tmp_path: Path, consortium: Consortium) -> None:
    plan = make_plan(small_state(tmp_path / "state"))
    promised = small_state(tmp_path / "update", 2.0)
    small_state(tmp_path / "update", 3.0)
    with coordinator(tmp_path / "spool", consortium) as server:
        server.mailbox.put(plan, tmp_path / "state")
        link = server.link(consortium, "mayo")
        sent = Update(task_id=plan.task_id, payload=promised, metrics=METRICS)
        assert link.submit(sent, tmp_path / "update") is RefusalCode.DIGEST_MISMATCH
        link.close()


def test_a_number_that_no_task_declares_is_refused(tmp_path: Path, consortium: Consortium) -> None:
    plan = make_plan(small_state(tmp_path / "state"))
    with coordinator(tmp_path / "spool", consortium) as server:
        server.mailbox.put(plan, tmp_path / "state")
        link = server.link(consortium, "mayo")
        sent = Update(task_id=plan.task_id, payload=plan.state, metrics={**METRICS, "patient_4711": 1.0})
        assert link.submit(sent, tmp_path / "state") is RefusalCode.METRIC_NOT_ALLOWED
        link.close()


def test_an_upload_that_was_cut_goes_on_at_its_byte(tmp_path: Path, consortium: Consortium) -> None:
    plan = make_plan(small_state(tmp_path / "state"))
    update = small_state(tmp_path / "update", 2.0)
    held = (tmp_path / "update").read_bytes()[:100]
    with coordinator(tmp_path / "spool", consortium) as server:
        server.mailbox.put(plan, tmp_path / "state")
        part = server.mailbox.task_folder(plan.task_id) / "update.part"
        part.write_bytes(held)
        assert server.mailbox.offset("mayo", plan.task_id) == 100
        link = server.link(consortium, "mayo")
        sent = Update(task_id=plan.task_id, payload=update, metrics=METRICS)
        assert link.submit(sent, tmp_path / "update") is None
        assert server.mailbox.update_path(plan.task_id).read_bytes() == (tmp_path / "update").read_bytes()
        link.close()


def test_an_upload_over_a_torn_beginning_starts_again(tmp_path: Path, consortium: Consortium) -> None:
    plan = make_plan(small_state(tmp_path / "state"))
    update = small_state(tmp_path / "update", 2.0)
    with coordinator(tmp_path / "spool", consortium) as server:
        server.mailbox.put(plan, tmp_path / "state")
        (server.mailbox.task_folder(plan.task_id) / "update.part").write_bytes(b"\0" * 100)
        link = server.link(consortium, "mayo")
        sent = Update(task_id=plan.task_id, payload=update, metrics=METRICS)
        assert link.submit(sent, tmp_path / "update") is None
        assert server.mailbox.update_path(plan.task_id).read_bytes() == (tmp_path / "update").read_bytes()
        link.close()


def test_a_download_that_was_cut_goes_on_at_its_byte(tmp_path: Path, consortium: Consortium) -> None:
    plan = make_plan(small_state(tmp_path / "state"))
    with coordinator(tmp_path / "spool", consortium) as server:
        server.mailbox.put(plan, tmp_path / "state")
        (tmp_path / "site.part").write_bytes((tmp_path / "state").read_bytes()[:64])
        link = server.link(consortium, "mayo")
        link.fetch(plan, tmp_path / "site")
        assert (tmp_path / "site").read_bytes() == (tmp_path / "state").read_bytes()
        link.close()


def test_a_restarted_coordinator_still_has_the_verdict(tmp_path: Path, consortium: Consortium) -> None:
    plan = make_plan(small_state(tmp_path / "state"))
    update = small_state(tmp_path / "update", 2.0)
    sent = Update(task_id=plan.task_id, payload=update, metrics=METRICS)
    with coordinator(tmp_path / "spool", consortium) as server:
        server.mailbox.put(plan, tmp_path / "state")
        link = server.link(consortium, "mayo")
        assert link.submit(sent, tmp_path / "update") is None
        port = server.port
    with coordinator(tmp_path / "spool", consortium, port=port) as server:
        server.mailbox.put(plan, tmp_path / "state")
        assert [outcome.payload for outcome in server.mailbox.wait([plan.task_id], 1)] == [update]
        assert link.submit(sent, tmp_path / "update") is None, "the link waits for the coordinator and asks again"
        link.close()


def test_a_site_outside_the_run_is_refused(tmp_path: Path, consortium: Consortium) -> None:
    with coordinator(tmp_path / "spool", consortium) as server:
        link = server.link(consortium, "upmc")
        with pytest.raises(Unreachable, match="site upmc is not part of run test"):
            link.hello(1, 1)
        link.close()


def test_a_certificate_of_upmc_cannot_speak_for_mayo(tmp_path: Path, consortium: Consortium) -> None:
    with coordinator(tmp_path / "spool", consortium, sites=("mayo", "upmc")) as server:
        link = Link("mayo", f"127.0.0.1:{server.port}", consortium.site_identity("upmc"))
        with pytest.raises(Unreachable, match="the certificate is of upmc, not of 'mayo'"):
            link.hello(1, 1)
        link.close()


def test_a_site_that_waits_when_the_run_ends_is_told_at_once(tmp_path: Path, consortium: Consortium) -> None:
    with coordinator(tmp_path / "spool", consortium) as server, ThreadPoolExecutor(1) as pool:
        link = server.link(consortium, "mayo")
        link.hello(1, 1)
        assert not server.board.all_know_end()
        waiting = pool.submit(link.poll, pb.PollRequest(state=pb.READY, wait_s=20))
        server.run_state = pb.FINISHED
        server.mailbox.close()
        assert waiting.result(timeout=10).run_state == pb.FINISHED
        assert server.board.all_know_end(), "the coordinator may leave"
        link.close()
