"""Attack a coordinator as a certified but hostile site would, while another site works, and say what came of it.

    .venv/bin/python tests/fuzz/fuzz_service.py [--seconds 120] [--seed 1] [--write]

The coordinator's service runs in a process of its own (``service_target``), with real certificates and sockets. Each
attack of ``attacks.py`` gets its share of the time. Meanwhile the honest site does whole visits: fetch, submit,
verdict. What is held: the coordinator lives; each visit of the honest site ends with the right bytes; the spool holds
nothing but the open tasks; memory, open files and log stay in bounds. ``--write`` puts the table into docs/security.md.
The exit code is 1 where something did not hold.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import mammofed_shared  # noqa: E402, F401, I001  (tls13 must come before the first import of grpc)

import numpy as np  # noqa: E402
from attacks import AS_IT_IS, READ, Answers, Attack, Hostile  # noqa: E402
from service_target import HONEST, HOSTILE, NAME, SHAPE  # noqa: E402

from identities import Consortium, make_consortium  # noqa: E402
from mammofed_shared.protocol import federation_pb2 as pb  # noqa: E402
from mammofed_shared.protocol.payload import write_payload  # noqa: E402
from mammofed_shared.protocol.plan import PayloadReference  # noqa: E402
from raw_site import RawSite  # noqa: E402

DOCUMENT = HERE.parents[1] / "docs" / "security.md"
BEGIN, END = "<!-- fuzz-service: begin -->", "<!-- fuzz-service: end -->"
MOST_GROWN_MB = 150.0
MOST_OPEN_FILES = 50
MOST_LOG_BYTES = 100_000
"""Of one attack, whatever its length: each kind of complaint is one line a minute."""
LONGEST_VISIT_S = 30.0
WAIT_S = 60.0


class Target:
    """The coordinator under attack."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.consortium: Consortium = make_consortium(folder / "consortium", [HOSTILE, HONEST], NAME)
        write_payload(folder / "state", {"layer.weight": np.ones(SHAPE, np.float32)})
        self.update: PayloadReference = write_payload(
            folder / "update", {"layer.weight": np.full(SHAPE, 2, np.float32)}
        )
        self._lock = threading.Lock()
        with (folder / "server.err").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "service_target.py"), str(folder), *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def ask(self, line: str) -> Any:
        """The child's answer; raises when it is dead."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        with self._process as process:  # closes its pipes and waits
            assert process.stdin is not None
            process.stdin.close()


@contextmanager
def target(*options: str) -> Iterator[Target]:
    """A coordinator in a folder of its own, gone afterwards; ``options`` as ``service_target`` knows them."""
    with tempfile.TemporaryDirectory(prefix="fuzz-service-") as folder:
        made = Target(Path(folder), *options)
        try:
            yield made
        finally:
            made.close()


class HonestSite:
    """Does one visit after the other while somebody attacks."""

    def __init__(self, attacked: Target) -> None:
        self._target = attacked
        self._visit = 0
        self.open_task = ""
        self.durations_s: list[float] = []
        self.wrong: list[str] = []

    def visit(self) -> None:
        """Fetch, submit, verdict; a call that is told to wait is made again."""
        self._visit += 1
        self.open_task = self._target.ask(f"offer {HONEST} {self._visit}")
        site = RawSite(self._target.consortium.site_identity(HONEST), self._target.port)
        began = time.monotonic()
        try:
            raw = pb.FetchRequest(task_id=self.open_task).SerializeToString()
            state = _patiently(lambda: b"".join(pb.Chunk.FromString(item).data for item in site.call("Fetch")(raw)))
            _patiently(lambda: site.call("Submit")(self._parts(), timeout=WAIT_S))
        finally:
            site.close()
        self.durations_s.append(time.monotonic() - began)
        refusal, digest = self._target.ask(f"outcome {HONEST} {self._visit}")
        if state != (self._target.folder / "state").read_bytes():
            self.wrong.append("the state came wrong")
        if refusal is not None or digest != self._target.update.digest:
            self.wrong.append(f"the update was taken in wrong ({refusal})")
        if self.durations_s[-1] > LONGEST_VISIT_S:
            self.wrong.append(f"a visit took {self.durations_s[-1]:.0f} s")

    def _parts(self) -> Iterator[bytes]:
        header = pb.SubmitHeader(task_id=self.open_task, metrics={"num_exams": 4.0})
        header.payload.digest, header.payload.size = self._target.update.digest, self._target.update.size
        yield pb.SubmitPart(header=header).SerializeToString()
        data = (self._target.folder / "update").read_bytes()
        for start in range(0, len(data), 250_000):
            yield pb.SubmitPart(data=data[start : start + 250_000]).SerializeToString()


def _patiently(call: Callable[[], Any]) -> Any:
    import grpc

    until = time.monotonic() + WAIT_S
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
                raise
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


@dataclass
class Finding:
    """What one attack came to."""

    attack: str
    words: str
    answers: Answers = field(default_factory=Counter)
    visits: int = 0
    median_s: float = 0.0
    worst_s: float = 0.0
    duration_s: float = 0.0
    busy: float = 0.0
    """CPU time of the coordinator, the honest site's visits included, over the duration."""
    grown_mb: float = 0.0
    log_bytes: int = 0
    wrong: list[str] = field(default_factory=list)


def attack(attacked: Target, honest: HonestSite, act: Attack, seed: int, rounds: int, seconds: float) -> Finding:
    """Let one attack go round so often or so long, whichever is more, while the honest site works."""
    number = (*READ, *AS_IT_IS).index(act)
    finding = Finding(act.__name__, (act.__doc__ or "").strip().rstrip("."))
    own = attacked.ask(f"offer {HOSTILE} {1 + number}")
    before, first, began = attacked.ask("look"), len(honest.durations_s), time.monotonic()
    folder = attacked.folder / "hostile"
    folder.mkdir(exist_ok=True)
    hostile = Hostile(
        attacked.consortium.site_identity(HOSTILE),
        attacked.port,
        own,
        f"test/r0001/v{10_000 + number:05d}/{HONEST}/train",
        random.Random(seed * 1000 + number),
        folder,
    )
    attacked.ask(f"offer {HONEST} {10_000 + number}")  # stays open: it is what the attacker asks for
    done = threading.Event()

    def go_round() -> None:
        until, turns = time.monotonic() + seconds, 0
        try:
            while turns < rounds or time.monotonic() < until:
                finding.answers += act(hostile)
                turns += 1
        except Exception as error:
            finding.wrong.append(f"the attack itself failed: {error!r}")
        finally:
            done.set()

    attacker = threading.Thread(target=go_round)
    attacker.start()
    while not done.is_set() or len(honest.durations_s) == first:
        honest.visit()
    attacker.join()
    finding.duration_s = time.monotonic() - began
    _judge(finding, before, attacked, number)
    took = honest.durations_s[first:]
    finding.visits, finding.median_s, finding.worst_s = len(took), statistics.median(took), max(took)
    finding.wrong += honest.wrong
    honest.wrong.clear()
    return finding


def _judge(finding: Finding, before: dict[str, Any], attacked: Target, number: int) -> None:
    attacked.ask(f"outcome {HOSTILE} {1 + number}")
    untouched = attacked.ask(f"outcome {HONEST} {10_000 + number}")
    after = attacked.ask("look")
    finding.busy = (after["cpu_s"] - before["cpu_s"]) / finding.duration_s
    finding.grown_mb = after["resident_mb"] - before["resident_mb"]
    finding.log_bytes = after["log_bytes"] - before["log_bytes"]
    if untouched != ["none yet", ""]:
        finding.wrong.append("another site's task was ended")
    if after["spool"]:
        finding.wrong.append(f"the spool holds {after['spool'][:3]}")
    if finding.grown_mb > MOST_GROWN_MB:
        finding.wrong.append(f"memory grew by {finding.grown_mb:.0f} MB")
    if after["open_files"] > before["open_files"] + MOST_OPEN_FILES:
        finding.wrong.append(f"{after['open_files'] - before['open_files']} files stayed open")
    if finding.log_bytes > MOST_LOG_BYTES:
        finding.wrong.append(f"the log grew by {finding.log_bytes:,} bytes")
    if finding.answers["answered"]:
        finding.wrong.append("a peer without certificate was answered")


def table(findings: list[Finding], calm_s: float) -> str:
    """The findings in Markdown."""
    lines = [
        f"A visit of the honest site (2 MB each way) takes {calm_s:.2f} s while nobody attacks. Measured on "
        f"{os.cpu_count()} cores that attacker, honest site and coordinator share.",
        "",
        "| Attack | Answers | a second | Visits of the honest site: median, worst | CPU | Memory | Log | Held |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for item in findings:
        answers = ", ".join(f"{count:,} × {name}" for name, count in item.answers.most_common())
        cells = (
            item.words,
            answers,
            f"{item.answers.total() / item.duration_s:,.0f}",
            f"{item.visits}: {item.median_s:.2f} s, {item.worst_s:.2f} s",
            f"{item.busy:.0%}",
            f"{item.grown_mb:+.0f} MB",
            f"{item.log_bytes:,} bytes",
            "; ".join(item.wrong) or "yes",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_between(document: Path, begin: str, end: str, text: str) -> None:
    """Put generated text between two markers of a document."""
    before, _, rest = document.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    document.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Attack, and judge what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the table into docs/security.md")
    arguments = parser.parse_args()
    findings, calm_s = [], 0.0
    share_s = arguments.seconds / len((*READ, *AS_IT_IS))
    for acts, options in ((READ, ["any-rate"]), (AS_IT_IS, [])):
        with target(*options) as attacked:
            honest = HonestSite(attacked)
            for _ in range(6):
                honest.visit()
            calm_s = statistics.median(honest.durations_s[1:])
            for act in acts:
                findings.append(attack(attacked, honest, act, arguments.seed, 1, share_s))
                print(table(findings, calm_s).splitlines()[-1], flush=True)
    if arguments.write:
        write_between(DOCUMENT, BEGIN, END, table(findings, calm_s))
    sys.exit(1 if any(item.wrong for item in findings) else 0)


if __name__ == "__main__":
    main()
