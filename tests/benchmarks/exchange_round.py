"""One FedAvg round's transfer between a coordinator and many sites, and what the coordinator makes of it.

All sites fetch and submit at once, each over a link and through a gate of its own, as threads of one process; the
coordinator is another. It takes the updates in, folds them, and writes the next state. With an encoding, its time to
round the state and to make the updates whole again counts, and the sites' time to make them whole and to encode.
"""

import multiprocessing
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from process_memory import forget_peak, status_bytes

from federation import METRICS, coordinator, make_plan
from identities import Consortium
from mammofed_server.folding import SiteUpdate, fold
from mammofed_server.schedule import make_schedule
from mammofed_shared.config.schedule import ScheduleSettings
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.encoding import decode, encode, encoded_names
from mammofed_shared.protocol.payload import reference_of
from mammofed_shared.protocol.plan import Encoding, PayloadReference, Plan, Update
from mammofed_shared.protocol.task_spec import TaskSpec
from mammofed_shared.protocol.wire import plan_from_wire
from mammofed_site.link import Link

LONGEST_S = 1800


@dataclass(frozen=True, slots=True)
class RoundInputs:
    """What a round is made of; every site sends the same update."""

    consortium: Consortium
    sites: tuple[str, ...]
    spec: TaskSpec
    state: Path
    update: Path
    download: Encoding = "fp32"
    upload: Encoding = "fp32"


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of a round's parts, bytes of one state down and one update up, and the coordinator's memory in bytes.

    ``transfer_s`` is from the first fetch to the last verdict, with all encoding and decoding; ``fold_s`` the mean.
    ``taking_in_peak`` and ``folding_peak`` are above the idle process.
    """

    transfer_s: float
    fold_s: float
    bytes_down: int
    bytes_up: int
    taking_in_peak: int
    folding_peak: int


def play_round(inputs: RoundInputs, folder: Path) -> Round:
    """One round in two fresh processes; what they wrote below ``folder`` is removed."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory(dir=folder, prefix="round-") as name:
        work = Path(name)
        server = context.Process(target=_coordinate, args=(theirs, inputs, work / "server"))
        server.start()
        theirs.close()
        port = ours.recv()
        sites = context.Process(target=_visit_all, args=(inputs, work / "sites", port))
        sites.start()
        sites.join(LONGEST_S)
        if sites.exitcode != 0:
            server.terminate()
        assert sites.exitcode == 0, f"the sites' process ended with code {sites.exitcode}"
        found: Round = ours.recv()
        server.join(LONGEST_S)
        assert server.exitcode == 0, f"the coordinator's process ended with code {server.exitcode}"
    return found


def _coordinate(pipe: Connection, inputs: RoundInputs, folder: Path) -> None:
    folder.mkdir()
    with coordinator(folder / "spool", inputs.consortium, inputs.sites, inputs.spec) as running:
        idle = forget_peak()
        started = time.perf_counter()
        plans, delivered = _plans(inputs, folder)
        for plan in plans:
            running.mailbox.put(plan, delivered, inputs.state)
        pipe.send(running.port)
        for plan in plans:
            (outcome,) = running.mailbox.wait([plan.task_id], LONGEST_S)
            assert outcome.refusal is None and outcome.payload is not None
        transfer_s, bytes_up = time.perf_counter() - started, outcome.payload.size
        taking_in = status_bytes("VmHWM") - idle
        forget_peak()
        started = time.perf_counter()
        _fold(inputs, plans, [running.mailbox.update_path(plan.task_id) for plan in plans], folder)
        fold_s = time.perf_counter() - started
        folding = status_bytes("VmHWM") - idle
        running.run_state = pb.FINISHED
        pipe.send(Round(transfer_s, fold_s, delivered.stat().st_size, bytes_up, taking_in, folding))


def _plans(inputs: RoundInputs, folder: Path) -> tuple[list[Plan], Path]:
    """A plan for each site, and the file that they receive."""
    delivered = inputs.state
    if inputs.download != "fp32":
        delivered = folder / "delivered.safetensors"
        encode(inputs.state, delivered, encoded_names(inputs.spec, inputs.download))
    reference = reference_of(delivered)
    changes = {"download": inputs.download, "upload": inputs.upload}
    return [make_plan(reference, site).model_copy(update=changes) for site in inputs.sites], delivered


def _fold(inputs: RoundInputs, plans: list[Plan], paths: list[Path], folder: Path) -> PayloadReference:
    settings = ScheduleSettings.model_validate({"kind": "fedavg", "rounds": 1, "weighting": "exams"})
    (turn,) = make_schedule(settings, inputs.sites).turns
    updates = [
        SiteUpdate(plan.site, path, reference_of(path), 100.0 + number)
        for number, (plan, path) in enumerate(zip(plans, paths, strict=True))
    ]
    before = folder / "before"
    before.mkdir()
    (before / "state.safetensors").symlink_to(inputs.state)
    folded = fold(turn, before, updates, inputs.spec, folder / "work")
    assert folded.state is not None
    return folded.state[1]


def _visit_all(inputs: RoundInputs, folder: Path, port: int) -> None:
    with ThreadPoolExecutor(len(inputs.sites)) as pool:
        for done in [pool.submit(_visit, inputs, folder / site, site, port) for site in inputs.sites]:
            done.result()


def _visit(inputs: RoundInputs, folder: Path, site: str, port: int) -> None:
    folder.mkdir(parents=True)
    link = Link(site, f"127.0.0.1:{port}", inputs.consortium.site_identity(site))
    link.hello(1, 1)
    plan = plan_from_wire(link.poll(pb.PollRequest(state=pb.READY, wait_s=20)).plan)
    state, path = folder / "state", inputs.update
    link.fetch(plan, state)
    if plan.download != "fp32":
        decode(state, folder / "whole")
        state = folder / "whole"
    if plan.upload != "fp32":
        path = folder / "encoded"
        names = encoded_names(inputs.spec, plan.upload)
        base = state if plan.upload == "delta" else None
        encode(inputs.update, path, names, base=base, keep_dropped=folder / "residual")
    update = Update(task_id=plan.task_id, payload=reference_of(path), metrics=METRICS)
    link.gate.open_for(update, path)
    refused = link.submit(update, path)
    assert refused is None, refused
    link.close()
    shutil.rmtree(folder)
