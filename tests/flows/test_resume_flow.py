"""A transfer that was cut goes on at its byte after either side starts again: what crosses the wire is counted."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cutting_proxy import CuttingProxy, cutting_proxy
from federation import METRICS, OpenGate, coordinator, make_plan
from identities import Consortium, make_consortium
from mammofed_server.mailbox import Mailbox, Outcome, Upload
from mammofed_server.service import FederationService
from mammofed_shared.errors import Unreachable
from mammofed_shared.protocol.payload import write_payload
from mammofed_shared.protocol.plan import PayloadReference, Plan, Update
from mammofed_shared.protocol.task_spec import TaskSpec, TensorSpec
from mammofed_site.link import Link

SHAPE = (4096, 4096)
SPEC = TaskSpec(
    task="pretrain", weight_key="num_exams", tensors={"w": TensorSpec(shape=SHAPE, dtype="F32", kind="parameter")}
)
CUT_AT = 0.73
SLACK = 2 * 2**20
"""Handshakes, calls and TLS; and what of an upload is on its way when the coordinator asks to wait a moment."""


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return make_consortium(tmp_path_factory.mktemp("consortium"), ["mayo"])


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes at which uploads and downloads began, as the coordinator heard it."""
    heard: list[int] = []
    receive, fetch = Mailbox.receive, FederationService.fetch

    def noting_receive(self: Mailbox, site: str, upload: Upload, chunks: Iterable[bytes]) -> Outcome:
        heard.append(upload.offset)
        return receive(self, site, upload, chunks)

    def noting_fetch(self: FederationService, site: str, request: Any, context: Any) -> Iterator[Any]:
        heard.append(request.offset)
        return fetch(self, site, request, context)

    monkeypatch.setattr(Mailbox, "receive", noting_receive)
    monkeypatch.setattr(FederationService, "fetch", noting_fetch)
    return heard


def _random(path: Path, seed: int) -> PayloadReference:
    return write_payload(path, {"w": np.random.default_rng(seed).standard_normal(SHAPE, np.float32)})


@pytest.mark.parametrize("who", ["the site", "the coordinator"])
def test_an_upload_cut_at_three_quarters_sends_the_rest_only(
    tmp_path: Path, consortium: Consortium, began: list[int], who: str
) -> None:
    plan = make_plan(_random(tmp_path / "state", 1))
    update = Update(task_id=plan.task_id, payload=_random(tmp_path / "update", 2), metrics=METRICS)
    assert update.payload is not None
    with cutting_proxy() as proxy:
        proxy.cut_after_sent = round(CUT_AT * update.payload.size)
        with _coordinator(tmp_path, consortium, plan, proxy):
            link = _link(proxy, consortium)
            sending = threading.Thread(target=_until_closed, args=(lambda: link.submit(update, tmp_path / "update"),))
            sending.start()
            assert proxy.is_cut.wait(60)
            if who == "the site":
                link.close()
                sending.join(60)
                proxy.forget()
                link = _link(proxy, consortium)
                assert link.submit(update, tmp_path / "update") is None
        if who == "the coordinator":
            with _coordinator(tmp_path, consortium, plan, proxy):
                proxy.forget()
                sending.join(60)
        link.close()
        _assert_rest(proxy.sent, update.payload.size, began)
    spool = tmp_path / "spool" / plan.task_id.replace("/", "_")
    assert (spool / "update.safetensors").read_bytes() == (tmp_path / "update").read_bytes()


@pytest.mark.parametrize("who", ["the site", "the coordinator"])
def test_a_download_cut_at_three_quarters_fetches_the_rest_only(
    tmp_path: Path, consortium: Consortium, began: list[int], who: str
) -> None:
    plan = make_plan(_random(tmp_path / "state", 1))
    assert plan.state is not None
    target = tmp_path / "site" / "state"
    with cutting_proxy() as proxy:
        proxy.cut_after_received = round(CUT_AT * plan.state.size)
        with _coordinator(tmp_path, consortium, plan, proxy):
            link = _link(proxy, consortium)
            fetching = threading.Thread(target=_until_closed, args=(lambda: link.fetch(plan, target),))
            fetching.start()
            assert proxy.is_cut.wait(60)
            if who == "the site":
                link.close()
                fetching.join(60)
                proxy.forget()
                link = _link(proxy, consortium)
                link.fetch(plan, target)
        if who == "the coordinator":
            with _coordinator(tmp_path, consortium, plan, proxy):
                proxy.forget()
                fetching.join(60)
        link.close()
        _assert_rest(proxy.received, plan.state.size, began)
    assert target.read_bytes() == (tmp_path / "state").read_bytes()


@contextmanager
def _coordinator(folder: Path, consortium: Consortium, plan: Plan, proxy: CuttingProxy) -> Iterator[None]:
    """A coordinator behind the proxy that offers the plan; the next one finds what this one leaves."""
    with coordinator(folder / "spool", consortium, ("mayo",), SPEC) as server:
        server.mailbox.put(plan, folder / "state")
        proxy.target = server.port
        yield


def _link(proxy: CuttingProxy, consortium: Consortium) -> Link:
    return Link("mayo", f"127.0.0.1:{proxy.port}", consortium.site_identity("mayo"), OpenGate("mayo"))


def _until_closed(call: Callable[[], object]) -> None:
    with suppress(Unreachable):
        call()


def _assert_rest(crossed: int, size: int, began: list[int]) -> None:
    """What crossed after the cut is what the receiver did not hold: grpc may have read ahead more than it had kept."""
    assert size / 4 < began[-1] <= CUT_AT * size + 2**16, f"it went on at byte {began[-1]}"
    assert size - began[-1] <= crossed < size - began[-1] + SLACK, f"{crossed} of {size} bytes crossed the second time"
