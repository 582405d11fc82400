"""What a worker process runs first. Light: the parent imports this module to name it, and must not import torch."""

import importlib
import json
import os
import signal
import threading
from multiprocessing.connection import Connection

from mammofed_shared.protocol.plan import Progress

HEAVY_MODULE = "mammofed_site.worker"
"""Loaded by name, in the forkserver and in the worker, so that the parent's imports stay free of torch."""


def run(folder: str, rank: int, connection: Connection) -> None:
    """Do process ``rank``'s part of the visit in ``folder`` and say so through ``connection``: progress (the first
    process only), then ``done`` or ``failed``."""

    def say(word: str, value: object) -> None:
        connection.send_bytes(json.dumps([word, value]).encode())

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; ending this is the parent's part
    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    worker = importlib.import_module(HEAVY_MODULE)

    def report(progress: Progress) -> None:
        if rank == 0:
            say("progress", progress.model_dump())

    code = worker.do_visit(folder, rank, report)
    if code is None:
        say("done", None)
    else:
        say("failed", code.value)


def _end_with_parent(connection: Connection) -> None:
    """The parent never sends: reading ends only when it is gone, and then nobody wants this visit."""
    try:
        connection.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)
