"""One way of logging for every command: an event and its facts, one line each, to standard error and to a file."""

import logging
import sys
from pathlib import Path

SAID = {"said": True}
"""``extra`` of a record whose words the command itself puts on the terminal: the log's file alone gets it."""

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def start_logging(file: Path | None = None, *, console: bool = True, level: int = logging.INFO) -> None:
    """Send this process's log to a file, readable by its owner only, and to standard error.

    Flower prints in colours through a handler of its own; here its records take the same way as ours.
    """
    handlers: list[logging.Handler] = []
    if console:
        terminal = logging.StreamHandler(sys.stderr)
        terminal.addFilter(lambda record: not getattr(record, "said", False))
        handlers.append(terminal)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
    logging.basicConfig(level=level, format=_FORMAT, handlers=handlers, force=True)
    flower = logging.getLogger("flwr")
    flower.handlers.clear()
    flower.propagate = True
    flower.setLevel(logging.WARNING)
