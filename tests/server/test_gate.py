"""A certified but hostile site: whatever it sends is answered, costs little, and touches nothing but its own task."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from federation import METRICS, Coordinator, coordinator, make_plan, small_state
from identities import Consortium, make_consortium
from mammofed_server import gate, limits
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.plan import Plan, Update
from mammofed_shared.protocol.wire import CALLS
from raw_site import RawSite


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return make_consortium(tmp_path_factory.mktemp("consortium"), ["mayo", "upmc"])


@pytest.fixture
def server(tmp_path: Path, consortium: Consortium) -> Iterator[Coordinator]:
    with coordinator(tmp_path / "spool", consortium, sites=("mayo", "upmc")) as running:
        yield running


@pytest.fixture
def hostile(server: Coordinator, consortium: Consortium) -> Iterator[RawSite]:
    site = RawSite(consortium.site_identity("mayo"), server.port)
    yield site
    site.close()


@pytest.fixture
def upmcs_plan(server: Coordinator, tmp_path: Path) -> Plan:
    """An open plan of another site, that nothing in these tests may touch."""
    plan = make_plan(small_state(tmp_path / "state"), site="upmc")
    server.mailbox.put(plan, tmp_path / "state")
    return plan


def _works_for_upmc(server: Coordinator, consortium: Consortium, plan: Plan, tmp_path: Path) -> None:
    link = server.link(consortium, "upmc")
    link.hello(1, 1)
    update = small_state(tmp_path / "upmcs-update", 2.0)
    link.fetch(plan, tmp_path / "upmcs-state")
    assert link.submit(Update(task_id=plan.task_id, payload=update, metrics=METRICS), tmp_path / "upmcs-update") is None
    assert server.mailbox.update_path(plan.task_id).read_bytes() == (tmp_path / "upmcs-update").read_bytes()
    link.close()


@pytest.mark.parametrize("name", sorted(CALLS))
@pytest.mark.parametrize(
    "garbage", [b"\xff" * 50, b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 900], ids=["tags", "lengths", "groups"]
)
def test_garbage_is_refused_in_words_of_our_own(hostile: RawSite, name: str, garbage: bytes) -> None:
    said = hostile.outcome(name, [garbage] if CALLS[name].request_streams else garbage)
    assert said == f"FAILED_PRECONDITION: not a message of {name}"


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_call_without_a_request_is_refused(hostile: RawSite, name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(hostile.streams(name)(iter(()), timeout=10))
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("name", sorted(set(CALLS) - {"Submit"}))
def test_a_message_larger_than_its_call_takes_is_refused(hostile: RawSite, name: str) -> None:
    raw = b"\xfa\x7f" + b"\x90\x4e" + bytes(10_000)  # an unknown field of 10,000 bytes
    assert "10004 bytes" in hostile.outcome(name, raw)
    assert hostile.outcome(name, bytes(5_000_000)).startswith("RESOURCE_EXHAUSTED"), "grpc itself takes no more"


def test_another_sites_task_cannot_be_read_sent_or_ended(
    server: Coordinator, consortium: Consortium, hostile: RawSite, upmcs_plan: Plan, tmp_path: Path
) -> None:
    task = upmcs_plan.task_id
    header = pb.SubmitHeader(task_id=task, metrics=METRICS)
    header.payload.digest, header.payload.size = "0" * 64, 10
    calls = {
        "Fetch": pb.FetchRequest(task_id=task).SerializeToString(),
        "Offset": pb.OffsetRequest(task_id=task).SerializeToString(),
        "Fail": pb.FailRequest(task_id=task, refusal_code=13).SerializeToString(),
        "Submit": [pb.SubmitPart(header=header).SerializeToString(), pb.SubmitPart(data=bytes(10)).SerializeToString()],
    }
    for name, request in calls.items():
        assert hostile.outcome(name, request).startswith("FAILED_PRECONDITION"), name
    reply = pb.PollReply.FromString(hostile.call("Poll")(pb.PollRequest(wait_s=0).SerializeToString(), timeout=10))
    assert not reply.HasField("plan")
    _works_for_upmc(server, consortium, upmcs_plan, tmp_path)


@pytest.mark.parametrize(
    "task",
    ["../../../etc/passwd", "test/r0001/v00001/mayo/train/../../x", "\0", "a" * 300, "é" * 90, "test/r0001", ""],
    ids=["above", "below", "nul", "long", "not ascii", "short", "empty"],
)
def test_a_task_that_is_a_path_leads_nowhere(
    server: Coordinator, hostile: RawSite, upmcs_plan: Plan, tmp_path: Path, task: str
) -> None:
    before = _files(tmp_path)
    for name, request in (
        ("Fetch", pb.FetchRequest(task_id=task)),
        ("Offset", pb.OffsetRequest(task_id=task)),
        ("Fail", pb.FailRequest(task_id=task, refusal_code=13)),
    ):
        assert hostile.outcome(name, request.SerializeToString()).startswith("FAILED_PRECONDITION")
    part = pb.SubmitPart(header=pb.SubmitHeader(task_id=task))
    assert hostile.outcome("Submit", [part.SerializeToString()]).startswith("FAILED_PRECONDITION")
    assert _files(tmp_path) == before


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_header_bombs_are_refused_and_the_connection_of_others_stands(
    server: Coordinator, consortium: Consortium, hostile: RawSite, upmcs_plan: Plan, tmp_path: Path
) -> None:
    bomb = [(f"x-{number}", "y" * 1000) for number in range(100)]
    assert hostile.outcome("Poll", b"", metadata=bomb).split(":")[0] in ("RESOURCE_EXHAUSTED", "UNAVAILABLE")
    _works_for_upmc(server, consortium, upmcs_plan, tmp_path)


def test_calls_that_say_nothing_hold_a_sites_own_places_only_and_are_cut(
    server: Coordinator,
    consortium: Consortium,
    hostile: RawSite,
    upmcs_plan: Plan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Headers without a message: grpc would keep a thread waiting for each, of any site, for ever."""
    silence = threading.Event()
    names = sorted(CALLS)
    calls = [hostile.streams(names[number % len(names)])(iter(silence.wait, True), timeout=60) for number in range(14)]
    _works_for_upmc(server, consortium, upmcs_plan, tmp_path)
    monkeypatch.setattr(gate, "WATCH_EVERY_S", 0.1)
    for call in server.gate.active():
        if call.silent_since_s is not None:
            call.silent_since_s -= 100
    codes = sorted(call.code().name for call in calls)
    silence.set()
    assert codes.count("CANCELLED") == limits.CALLS_PER_SITE
    assert codes.count("RESOURCE_EXHAUSTED") == 14 - limits.CALLS_PER_SITE


def test_an_endless_upload_ends_at_the_announced_size(server: Coordinator, hostile: RawSite, tmp_path: Path) -> None:
    plan = make_plan(small_state(tmp_path / "state"), site="mayo")
    server.mailbox.put(plan, tmp_path / "state")
    header = pb.SubmitHeader(task_id=plan.task_id, metrics=METRICS)
    header.payload.digest, header.payload.size = "0" * 64, 1000
    sent = [0]

    def endless() -> Iterator[bytes]:
        yield pb.SubmitPart(header=header).SerializeToString()
        while True:
            sent[0] += 1
            yield pb.SubmitPart(data=bytes(200_000)).SerializeToString()

    reply = pb.SubmitReply.FromString(hostile.call("Submit")(endless(), timeout=20))
    assert reply.refusal_code == 9, "TOO_LARGE"
    assert not list((tmp_path / "spool").rglob("update.*"))


def test_calls_beyond_a_sites_rate_wait_and_fill_no_log(
    server: Coordinator, consortium: Consortium, hostile: RawSite, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = [hostile.outcome("Hello", pb.HelloRequest(site="mayo").SerializeToString()) for _ in range(200)]
    assert sum(item.startswith("RESOURCE_EXHAUSTED: site mayo calls Hello more often") for item in said) >= 170
    assert len(caplog.records) < 5
    upmc = server.link(consortium, "upmc")
    assert upmc.hello(1, 1) == "test"
    upmc.close()


def test_an_error_of_ours_stays_here(
    server: Coordinator, hostile: RawSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(site: str, task_id: str) -> bool:
        raise OSError("/srv/secret/path is on fire")

    monkeypatch.setattr(server.mailbox, "is_open", broken)
    for _ in range(5):
        assert hostile.outcome("Poll", b"") == "INTERNAL: an error of the coordinator; see its log"
    assert caplog.text.count("Poll failed") == 1, "with its traceback, once a minute"


def test_a_peer_without_certificate_reaches_no_thread_of_ours(
    server: Coordinator, consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[str] = []
    monkeypatch.setattr(server.gate, "_admit", lambda name, context: entered.append(name))
    nobody = grpc.ssl_channel_credentials(consortium.site_identity("mayo").root_pem)
    with grpc.secure_channel(f"127.0.0.1:{server.port}", nobody) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/mammofed.federation.v1.Federation/Poll")(b"", timeout=5)
    assert entered == []
