"""One hand-off of the `paper` state on this machine: our mailbox beside a bare gRPC stream of the same bytes.

    .venv/bin/python tests/benchmarks/exchange.py [--pairs 5] [--megabytes 715.9]
    .venv/bin/python tests/benchmarks/exchange.py --sites 2 16
    .venv/bin/python tests/benchmarks/exchange.py --encodings

A hand-off is what one visit costs in transfer: the state down to the site, then an equally large update up to the
coordinator. Both transports speak mutual TLS 1.3 between two processes over 127.0.0.1, in chunks of the same size, and
both hash and fsync where the bytes arrive. Ours also looks up the plan, can go on after a cut, checks names, shapes,
dtypes and finite values of the update, and writes the verdict. Each pair runs both, in turns first, each in fresh
processes, so that a machine that is busy at times is busy for both. Memory is the peak of the resident set during the
hand-off above that of the connected, idle process; pages of mapped files count.

`--sites` plays one FedAvg round of so many sites at once instead and tells the coordinator's memory as a multiple of
the payload; `--encodings` plays a round of one site in each encoding beside fp32.
"""

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import bare_stream
from exchange_round import Round, RoundInputs, play_round
from paper_state import paper_tensors, spec_of, tensors_of_about, write_random
from process_memory import forget_peak, status_bytes

from federation import METRICS, coordinator, make_plan
from identities import Consortium, make_consortium
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.plan import Encoding, Plan, Update
from mammofed_shared.protocol.task_spec import TaskSpec
from mammofed_shared.protocol.wire import CHUNK_BYTES, plan_from_wire
from mammofed_site.egress import release
from mammofed_site.link import Link

SITE = "mayo"
TRANSPORTS = ("ours", "bare")
ENCODINGS: tuple[tuple[Encoding, Encoding], ...] = (("fp32", "fp32"), ("bf16", "bf16"), ("bf16", "delta"))
"""Of the state on its way down and of the update on its way up."""
LONGEST_S = 600


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is handed off, the same for every pair."""

    consortium: Consortium
    plan: Plan
    spec: TaskSpec
    state: Path
    update: Update
    update_path: Path


@dataclass(frozen=True, slots=True)
class HandOff:
    """What one hand-off took: seconds each way, and bytes of peak resident memory above idle."""

    down_s: float
    up_s: float
    server_peak: int
    site_peak: int

    @property
    def seconds(self) -> float:
        """Both ways."""
        return self.down_s + self.up_s


# ── the processes ───────────────────────────────────────────────────────────────────────────────────────────────


def _server_process(pipe: Connection, transport: str, inputs: Inputs, folder: Path) -> None:
    if transport == "ours":
        with coordinator(folder / "spool", inputs.consortium, (SITE,), inputs.spec) as running:
            running.mailbox.put(inputs.plan, inputs.state)
            _attend(pipe, running.port)
            (outcome,) = running.mailbox.wait([inputs.plan.task_id], 0)
            assert outcome.refusal is None and outcome.payload == inputs.update.payload
    else:
        server, port = bare_stream.serve(inputs.consortium, inputs.state, folder / "received")
        _attend(pipe, port)
        server.stop(grace=0).wait()


def _attend(pipe: Connection, port: int) -> None:
    """Say the port; once the site is connected note the idle memory; once it is done tell the peak above it."""
    pipe.send(port)
    pipe.recv()
    idle = forget_peak()
    pipe.send("noted")
    pipe.recv()
    pipe.send(status_bytes("VmHWM") - idle)


def _site_process(pipe: Connection, transport: str, inputs: Inputs, folder: Path, port: int) -> None:
    make = _our_hand_off if transport == "ours" else _bare_hand_off
    down, up, close = make(inputs, folder, port)
    pipe.send("connected")
    pipe.recv()
    idle = forget_peak()
    seconds = [_seconds(down), _seconds(up)]
    pipe.send((*seconds, status_bytes("VmHWM") - idle))
    close()


Step = Callable[[], Any]


def _our_hand_off(inputs: Inputs, folder: Path, port: int) -> tuple[Step, Step, Step]:
    link = Link(SITE, f"127.0.0.1:{port}", inputs.consortium.site_identity(SITE))
    link.hello(1, 1)
    plan = plan_from_wire(link.poll(pb.PollRequest(state=pb.READY, wait_s=5)).plan)

    def up() -> None:
        link.gate.open_for(inputs.update, inputs.update_path)
        refused = link.submit(inputs.update, inputs.update_path)
        assert refused is None, refused

    return lambda: link.fetch(plan, folder / "state"), up, link.close


def _bare_hand_off(inputs: Inputs, folder: Path, port: int) -> tuple[Step, Step, Step]:
    link = bare_stream.BareLink(inputs.consortium, SITE, port)

    def down() -> None:
        assert link.fetch(folder / "state") == inputs.plan.state.digest

    def up() -> None:
        assert inputs.update.payload is not None
        assert link.submit(inputs.update_path) == inputs.update.payload.digest

    return down, up, link.close


def _seconds(step: Step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


# ── the measurement ─────────────────────────────────────────────────────────────────────────────────────────────


def hand_off(transport: str, inputs: Inputs) -> HandOff:
    """One hand-off between two fresh processes; what it wrote is removed."""
    context = multiprocessing.get_context("spawn")
    to_server, server_end = context.Pipe()
    to_site, site_end = context.Pipe()
    with tempfile.TemporaryDirectory(dir=inputs.state.parent, prefix=transport) as name:
        folder = Path(name)
        server = context.Process(target=_server_process, args=(server_end, transport, inputs, folder))
        server.start()
        server_end.close()
        site = context.Process(target=_site_process, args=(site_end, transport, inputs, folder, to_server.recv()))
        site.start()
        site_end.close()
        to_site.recv()
        to_server.send("the site is connected")
        to_server.recv()
        to_site.send("go")
        down_s, up_s, site_peak = to_site.recv()
        site.join(LONGEST_S)
        to_server.send("done")
        server_peak = to_server.recv()
        server.join(LONGEST_S)
        for process in (site, server):
            assert process.exitcode == 0, f"a process of {transport} ended with code {process.exitcode}"
    return HandOff(down_s, up_s, server_peak, site_peak)


def make_inputs(folder: Path, megabytes: float) -> Inputs:
    """Random state and update, and the identities, below ``folder``."""
    tensors = tensors_of_about(megabytes)
    state, update = folder / "state.safetensors", folder / "update.safetensors"
    plan = make_plan(write_random(state, tensors, seed=1), SITE)
    payload = write_random(update, tensors, seed=2)
    print(f"{len(tensors)} tensors, {payload.size / 1e6:.1f} MB each way, chunks of {CHUNK_BYTES // 2**10} KiB")
    sent = Update(task_id=plan.task_id, payload=payload, metrics=METRICS)
    return Inputs(make_consortium(folder, [SITE]), plan, spec_of(tensors), state, sent, update)


def measure(inputs: Inputs, num_pairs: int) -> dict[str, list[HandOff]]:
    """Interleaved pairs; which transport is first alternates."""
    found: dict[str, list[HandOff]] = {transport: [] for transport in TRANSPORTS}
    for pair in range(num_pairs):
        for transport in TRANSPORTS if pair % 2 == 0 else reversed(TRANSPORTS):
            os.sync()  # what an earlier run left to write is not this one's to wait for
            one = hand_off(transport, inputs)
            found[transport].append(one)
            print(f"pair {pair + 1} {transport}  {_line(one)}  load {os.getloadavg()[0]:.1f}", flush=True)
    return found


def _line(one: HandOff) -> str:
    return (
        f"down {one.down_s:6.2f} s  up {one.up_s:6.2f} s  both {one.seconds:6.2f} s  above idle: "
        f"server {one.server_peak / 1e6:6.1f} MB, site {one.site_peak / 1e6:6.1f} MB"
    )


def _median(found: list[HandOff]) -> HandOff:
    columns = zip(*((one.down_s, one.up_s, one.server_peak, one.site_peak) for one in found), strict=True)
    return HandOff(*(statistics.median(column) for column in columns))  # type: ignore[arg-type]


def measure_sites(folder: Path, megabytes: float, counts: list[int]) -> None:
    """One FedAvg round for each number of sites."""
    for count in counts:
        one = play_round(_round_inputs(folder, megabytes, count), folder)
        times = max(one.taking_in_peak, one.folding_peak) / one.bytes_up
        print(f"FedAvg over {count:2d} sites  {_round_line(one)}  = {times:.2f} x the payload", flush=True)


def measure_encodings(folder: Path, megabytes: float, num_rounds: int) -> None:
    """Rounds of one site, the encodings in turns; the ratios are to fp32 in the same turn."""
    inputs = _round_inputs(folder, megabytes, 1)
    found: dict[tuple[Encoding, Encoding], list[Round]] = {pair: [] for pair in ENCODINGS}
    for _ in range(num_rounds):
        for down, up in ENCODINGS:
            one = play_round(dataclasses.replace(inputs, download=down, upload=up), folder)
            found[down, up].append(one)
            print(f"down {down}, up {up:5s}  {_round_line(one)}", flush=True)
    plain = found["fp32", "fp32"]
    for (down, up), rounds in found.items():
        pairs = list(zip(rounds, plain, strict=True))
        seconds = statistics.median(one.transfer_s / whole.transfer_s for one, whole in pairs)
        num_bytes = (rounds[0].bytes_down + rounds[0].bytes_up) / (plain[0].bytes_down + plain[0].bytes_up)
        print(f"down {down}, up {up:5s}: {num_bytes:.2f} x the bytes and {seconds:.2f} x the time of fp32")


def _round_inputs(folder: Path, megabytes: float, num_sites: int) -> RoundInputs:
    tensors = tensors_of_about(megabytes)
    state, update = folder / "state.safetensors", folder / "update.safetensors"
    if not update.exists():
        write_random(state, tensors, seed=1)
        write_random(update, tensors, seed=2)
    sites = tuple(f"site-{number}" for number in range(1, num_sites + 1))
    consortium = make_consortium(folder / f"consortium-{num_sites}", sites)
    return RoundInputs(consortium, sites, spec_of(tensors), state, update)


def _round_line(one: Round) -> str:
    return (
        f"{one.bytes_down / 1e6:.0f} MB down, {one.bytes_up / 1e6:.0f} MB up, {one.transfer_s:6.1f} s, "
        f"mean {one.fold_s:5.1f} s; coordinator above idle: taking in {one.taking_in_peak / 1e6:6.1f} MB, "
        f"folding {one.folding_peak / 1e6:6.1f} MB"
    )


def measure_hand_offs(folder: Path, megabytes: float, num_pairs: int) -> None:
    """Pairs of hand-offs; the last line is the ratio of their seconds."""
    inputs = make_inputs(folder, megabytes)
    found = measure(inputs, num_pairs)
    started = time.perf_counter()
    release(inputs.plan, inputs.state, inputs.update_path, METRICS)
    print(f"not in it: the site's own gate (release: finite, names, SHA-256) {time.perf_counter() - started:.2f} s")
    for transport in TRANSPORTS:
        print(f"median {transport}  {_line(_median(found[transport]))}")
    pairs = zip(found["ours"], found["bare"], strict=True)
    ratios = sorted(ours.seconds / bare.seconds for ours, bare in pairs)
    print(f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f} over {len(ratios)} pairs)")


def main() -> None:
    """Measure what was asked for and print it."""
    whole = 4 * spec_of(paper_tensors()).num_values / 1e6
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="how often each is measured (hand-offs and encodings)")
    parser.add_argument("--megabytes", type=float, default=whole, help="at most, and by default, the whole state")
    parser.add_argument("--sites", type=int, nargs="+", help="play a FedAvg round of so many sites at once")
    parser.add_argument("--encodings", action="store_true", help="compare the encodings")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mammofed-exchange-") as name:
        if arguments.sites:
            measure_sites(Path(name), arguments.megabytes, arguments.sites)
        elif arguments.encodings:
            measure_encodings(Path(name), arguments.megabytes, arguments.pairs)
        else:
            measure_hand_offs(Path(name), arguments.megabytes, arguments.pairs)


if __name__ == "__main__":
    main()
