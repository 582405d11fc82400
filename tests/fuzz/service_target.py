"""The child of ``fuzz_service.py``: a coordinator's service that is attacked, and answers its parent by pipes.

    service_target.py FOLDER [any-rate]

The parent has put `consortium/` and `state` into the folder; spool and log come to lie there too. `any-rate` lifts the
limit of calls a second, so that all is read. Lines in, one line of JSON out: ``offer SITE VISIT`` puts a plan for a
site, ``outcome SITE VISIT`` gives its verdict and the digest of what was taken in, ``look`` gives memory, CPU time,
threads, open files, bytes of log and the names in the spool.
"""

import json
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

sys.path.insert(0, str(Path(__file__).parent.parent))

import mammofed_shared  # noqa: F401, I001  (tls13 must come before the first import of grpc)

from federation import Coordinator, coordinator, make_plan
from identities import Consortium
from mammofed_server import ca, gate, limits
from mammofed_shared.log import start_logging
from mammofed_shared.protocol.payload import reference_of
from mammofed_shared.protocol.task_spec import TaskSpec, TensorSpec

NAME = "hospitals"
HOSTILE, HONEST = "mayo", "upmc"
SHAPE = (512, 1024)
"""2 MB: eight chunks."""
SPEC = TaskSpec(
    task="pretrain",
    weight_key="num_exams",
    tensors={"layer.weight": TensorSpec(shape=SHAPE, dtype="F32", kind="parameter")},
)


def consortium_in(folder: Path) -> Consortium:
    """The consortium that the parent made."""
    authority = folder / "authority"
    sites = {site: folder / "sites" / site for site in (HOSTILE, HONEST)}
    return Consortium(NAME, authority, "", authority / ca.SERVER, sites)


def look(folder: Path) -> dict[str, object]:
    """What no attack may let grow."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "resident_mb": int(status["VmRSS"].split()[0]) / 1024,
        "cpu_s": sum(os.times()[:2]),
        "threads": threading.active_count(),
        "open_files": len(list(Path("/proc/self/fd").iterdir())),
        "spool": sorted(str(path.relative_to(folder)) for path in (folder / "spool").rglob("*")),
        "log_bytes": sum((folder / name).stat().st_size for name in ("server.log", "server.err")),
    }


def answer(folder: Path, server: Coordinator, words: list[str]) -> object:
    """What one line of the parent asks for."""
    if words[0] == "look":
        return look(folder)
    plan = make_plan(reference_of(folder / "state"), site=words[1], visit=int(words[2]))
    if words[0] == "offer":
        server.mailbox.put(plan, folder / "state")
        return plan.task_id
    outcome, taken = server.mailbox.outcome(plan.task_id), server.mailbox.update_path(plan.task_id)
    digest = reference_of(taken).digest if taken.exists() else ""
    server.mailbox.forget(plan.task_id)
    return [outcome.refusal if outcome else "none yet", digest]


def main() -> None:
    """Serve until standard input ends."""
    folder = Path(sys.argv[1])
    start_logging(folder / "server.log", console=False)
    if "any-rate" in sys.argv:
        lifted = {name: replace(limit, burst=10**9) for name, limit in limits.CALL_LIMITS.items()}
        limits.CALL_LIMITS = gate.CALL_LIMITS = MappingProxyType(lifted)
    with coordinator(
        folder / "spool", consortium_in(folder / "consortium"), sites=(HOSTILE, HONEST), spec=SPEC
    ) as server:
        print(server.port, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(folder, server, line.split())), flush=True)


if __name__ == "__main__":
    main()
