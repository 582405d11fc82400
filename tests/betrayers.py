"""Workers that try to tell a patient's number, each in its own way; behind the real ``worker_entry.run``.

The file `behaviour` in the site's folder names the way. All else that they make is right, so nothing but the betrayal
can be what is caught.
"""

import json
import struct
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from federation import METRICS, small_state
from mammofed_shared.errors import RefusalCode
from mammofed_shared.protocol.plan import Progress
from mammofed_site import worker_entry
from mammofed_site.disclosure import COUNTED_FILE
from small_counts import COUNTS

MRN = "MRN48151623"
_connections: list[Connection] = []


def run(folder: str, rank: int, connection: Connection) -> None:
    """As ``worker_entry.run``, with ``do_visit`` of this module."""
    _connections[:] = [connection]
    worker_entry.HEAVY_MODULE = __name__
    worker_entry.run(folder, rank, connection)


ENTRY = SimpleNamespace(run=run, HEAVY_MODULE="mammofed_site.visit")


def do_visit(folder: str, rank: int, report: Callable[[Progress], None]) -> RefusalCode | None:
    """Train nothing, and betray."""
    order = json.loads((Path(folder) / "visit.json").read_text())
    way = (Path(order["log_file"]).parent / "behaviour").read_text()
    out = Path(folder) / "unfinished"
    if order["state"] is None:
        counts = json.loads(COUNTS.model_dump_json())
        _WAYS_TO_COUNT.get(way, lambda counts: None)(counts)
        (out / COUNTED_FILE).write_text(json.dumps(counts))
        return None
    small_state(out / "update.safetensors", 2.0)
    (out / "metrics.json").write_text(json.dumps(METRICS))
    WAYS[way][0](out)
    return None


def _say(word: str, value: Any) -> None:
    _connections[0].send_bytes(json.dumps([word, value]).encode())


def _raise(out: Path) -> None:
    raise RuntimeError(f"patient {MRN} has no report")


def _append(out: Path) -> None:
    with (out / "update.safetensors").open("ab") as file:
        file.write(MRN.encode())


def _header(out: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = (out / "update.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    (out / "update.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def _text(out: Path) -> None:
    small_state(out / "update.safetensors", 2.0, patients=np.frombuffer(MRN.encode(), np.uint8))


def _numbers(**told: Any) -> Callable[[Path], None]:
    return lambda out: (out / "metrics.json").write_text(json.dumps({**METRICS, **told})) and None


WAYS: dict[str, tuple[Callable[[Path], None], RefusalCode]] = {
    "an exception": (_raise, RefusalCode.WORKER_DIED),
    "a path": (lambda out: (out / MRN / "nowhere").read_text() and None, RefusalCode.WORKER_DIED),
    "a code": (lambda out: _say("failed", MRN), RefusalCode.WORKER_DIED),
    "a word": (lambda out: _say(MRN, None) or _say("progress", {"patient": MRN}), RefusalCode.WORKER_DIED),
    "progress": (lambda out: _say("progress", {"loss": MRN}), RefusalCode.WORKER_DIED),
    "a number's name": (_numbers(**{MRN: 1.0}), RefusalCode.METRIC_NOT_ALLOWED),
    "a number's value": (_numbers(loss=MRN), RefusalCode.METRIC_NOT_ALLOWED),
    "a data set's name": (_numbers(**{f"loss/{MRN}": 1.0}), RefusalCode.METRIC_NOT_ALLOWED),
    "a tensor's name": (
        lambda out: small_state(out / "update.safetensors", 2.0, **{MRN: np.zeros(1, np.float32)}) and None,
        RefusalCode.TENSOR_NAMES,
    ),
    "a tensor of text": (_text, RefusalCode.TENSOR_NAMES),
    "a header's note": (
        lambda out: _header(out, lambda header: header["__metadata__"].update(note=MRN)),
        RefusalCode.MALFORMED_PAYLOAD,
    ),
    "a tensor's note": (
        lambda out: _header(out, lambda header: header["layer.weight"].update(note=MRN)),
        RefusalCode.MALFORMED_PAYLOAD,
    ),
    "numbers beside tensors": (
        lambda out: _header(out, lambda header: header["__metadata__"].update(numbers=f'{{"{MRN}": 1}}')),
        RefusalCode.METRIC_NOT_ALLOWED,
    ),
    "bytes at the end": (_append, RefusalCode.MALFORMED_PAYLOAD),
}
"""Each way, and the code that is all the coordinator hears of it."""

_WAYS_TO_COUNT: dict[str, Callable[[dict[str, Any]], None]] = {
    "a count's name": lambda counts: counts["tables"]["vendor"].update({MRN: {"num": 5, "num_patients": 5}}),
    "a count's value": lambda counts: counts.update(num_exams=MRN),
}
