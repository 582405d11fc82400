"""`fl-server` that writes down every byte and every header that it receives: ``recording_server.py RECORD ARGS…``."""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mammofed_server import cli, gate

_lock = threading.Lock()


def record_into(record: Path) -> Any:
    """``Gate._answers`` with a record; gives what it takes the place of."""
    answers = gate.Gate._answers

    def note(kind: str, data: bytes) -> None:
        with _lock, record.open("ab") as file:
            file.write(kind.encode() + b" " + data + b"\n")

    def recorded(self: gate.Gate, name: str, method: Any, raw: Iterator[bytes], context: Any) -> Any:
        note("metadata", json.dumps([[item.key, str(item.value)] for item in context.invocation_metadata()]).encode())

        def noted() -> Iterator[bytes]:
            for message in raw:
                note(name, message)
                yield message

        return answers(self, name, method, noted(), context)

    gate.Gate._answers = recorded  # type: ignore[method-assign]
    return answers


if __name__ == "__main__":
    record_into(Path(sys.argv.pop(1)))
    cli.main()
