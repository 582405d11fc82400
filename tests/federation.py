"""A coordinator on 127.0.0.1 and links to it, for tests of the transport: real sockets, real certificates."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from identities import Consortium
from mammofed_server.gate import Gate as CallGate
from mammofed_server.mailbox import Mailbox
from mammofed_server.service import FederationService, start_server
from mammofed_server.sites import SiteBoard
from mammofed_server.trust import Trust
from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.payload import write_payload
from mammofed_shared.protocol.plan import PayloadReference, Plan
from mammofed_shared.protocol.task_spec import TaskSpec, TensorSpec
from mammofed_site.gate import Gate
from mammofed_site.link import Link

SMALL_SPEC = TaskSpec(
    task="pretrain",
    weight_key="num_exams",
    tensors={
        "layer.weight": TensorSpec(shape=(4, 3), dtype="F32", kind="parameter"),
        "norm.running_mean": TensorSpec(shape=(4,), dtype="F32", kind="buffer"),
        "norm.num_batches_tracked": TensorSpec(shape=(), dtype="I64", kind="counter"),
    },
)
METRICS = {"num_exams": 10.0, "loss": 1.5}


def small_state(path: Path, value: float = 1.0, **replaced: object) -> PayloadReference:
    """A payload with the tensors of ``SMALL_SPEC``; ``replaced`` puts other arrays in their place."""
    tensors = {
        "layer.weight": np.full((4, 3), value, np.float32),
        "norm.running_mean": np.arange(4, dtype=np.float32) * np.float32(value),
        "norm.num_batches_tracked": np.array(round(value), np.int64),
    }
    return write_payload(path, {**tensors, **replaced})  # type: ignore[dict-item]


def make_plan(state: PayloadReference | None, site: str = "mayo", visit: int = 1, kind: str = "train") -> Plan:
    """A plan of run `test` for one visit of ``site``; a query has no state."""
    return Plan(
        task_id=f"test/r0001/v{visit:05d}/{site}/{kind}",
        run="test",
        round=1,
        visit=visit,
        site=site,
        kind=kind,  # type: ignore[arg-type]
        epochs=1,
        epochs_before=0,
        epochs_total=2,
        seed=1,
        task=PretrainSettings(),
        preprocessing="0" * 64,
        text_encoder="0" * 64,
        state=state,
        configuration="0" * 64,
        rounds_total=2,
        num_sites=1,
    )


class OpenGate(Gate):
    """Lets out whatever it is given, as the client of a dishonest site would."""

    def serialize(self, message: Any) -> bytes:
        return bytes(message.SerializeToString())

    @contextmanager
    def passage(self) -> Iterator[Any]:
        yield self


@dataclass
class Coordinator:
    """A running service and what is behind it."""

    mailbox: Mailbox
    board: SiteBoard
    port: int
    run_state: pb.RunState
    gate: CallGate

    def link(self, consortium: Consortium, site: str) -> Link:
        """A link of an enrolled site, whose gate lets everything out: the coordinator must not rely on it."""
        return Link(site, f"127.0.0.1:{self.port}", consortium.site_identity(site), OpenGate(site))


@contextmanager
def coordinator(
    folder: Path,
    consortium: Consortium,
    sites: tuple[str, ...] = ("central", "mayo"),
    spec: TaskSpec = SMALL_SPEC,
    port: int = 0,
) -> Iterator[Coordinator]:
    """Run a coordinator's service; its spool is in ``folder`` and outlives it."""
    renewal = consortium.authority / "renewal"
    trust = Trust(consortium.server_identity(), consortium.server, renewal)
    mailbox, board = Mailbox(folder, spec), SiteBoard(sites)
    service = FederationService(
        run="test",
        consortium=consortium.name,
        mailbox=mailbox,
        board=board,
        run_state=lambda: running.run_state,
        renewal_folder=renewal,
        trust=trust,
    )
    running = Coordinator(mailbox, board, 0, pb.RUNNING, service.gate)
    server, running.port = start_server(service, trust, f"127.0.0.1:{port}", len(sites))
    try:
        yield running
    finally:
        server.stop(grace=0).wait()
