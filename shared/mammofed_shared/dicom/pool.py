"""Worker processes of which any may die: a death or a hang costs the one item that the worker held.

``concurrent.futures`` breaks a whole pool when one worker dies, and cannot say over what. Here each worker
has a pipe and one item at a time, so the culprit is known, and a new worker takes its place.
"""

import logging
import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from mammofed_shared.errors import DataError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_READY_S = 120.0
"""A worker that has not imported its modules by then will not."""


class Loss(Enum):
    """How an item was lost."""

    DIED = "died"
    HUNG = "hung"
    RAISED = "raised"


@dataclass(frozen=True, slots=True)
class Lost:
    """What stands in place of a result; ``detail`` names our own code, never the item."""

    loss: Loss
    detail: str


@dataclass(slots=True)
class _Worker(Generic[Item]):
    process: BaseProcess
    pipe: Connection
    item: Item | None = None
    since: float = 0.0
    is_ready: bool = False


def map_isolated(
    function: Callable[[Any], Result],
    items: Iterable[Item],
    *,
    workers: int,
    timeout_s: float,
    argument: Callable[[Item], Any] = lambda item: item,
) -> Iterator[tuple[Item, Result | Lost]]:
    """Apply ``function`` to each item in worker processes; give results as they come, in any order.

    Items are drawn one by one, so memory does not grow with their number.

    Args:
        function: picklable; its module is imported by each worker.
        workers: number of processes.
        timeout_s: a worker that holds an item for longer is killed.
        argument: what of an item is handed to the function; the whole item by default.

    Raises:
        DataError: a worker ended before it could take an item, so none will do.
    """
    source = iter(items)
    item = next(source, None)
    pool: list[_Worker[Item]] = []
    try:
        while item is not None or any(worker.item is not None for worker in pool):
            while item is not None and len(pool) < workers:
                pool.append(_start(function))
            for worker in pool:
                if item is not None and worker.is_ready and worker.item is None:
                    worker.item, worker.since = item, time.monotonic()
                    if _send(worker, argument(item)):
                        item = next(source, None)
                    else:
                        worker.item = None
            yield from _collect(pool, timeout_s)
    finally:
        for worker in pool:
            _end(worker)


def _collect(pool: list[_Worker[Item]], timeout_s: float) -> Iterator[tuple[Item, Any]]:
    """Wait for the next events and take dead and hung workers out of the pool."""
    now = time.monotonic()
    until = min(
        (w.since + (timeout_s if w.is_ready else _READY_S) for w in pool if w.item is not None or not w.is_ready),
        default=now,
    )
    ready = wait([worker.pipe for worker in pool], max(0.0, until - now))
    for worker in list(pool):
        limit_s = timeout_s if worker.is_ready else _READY_S
        if worker.pipe in ready:
            answer = _receive(worker)
        elif (worker.item is not None or not worker.is_ready) and time.monotonic() - worker.since > limit_s:
            answer = Lost(Loss.HUNG, f"stopped after {limit_s:.0f} s")
        else:
            continue
        held, worker.item = worker.item, None
        was_ready, worker.is_ready = worker.is_ready, True
        if isinstance(answer, Lost) and answer.loss is not Loss.RAISED:
            pool.remove(worker)
            _end(worker)
            if not was_ready:
                raise DataError(f"a worker process could not start: {answer.detail}")
            logger.warning("a worker was lost: %s", answer.detail)
        if held is not None:
            yield held, answer


def _start(function: Callable[[Item], Any]) -> _Worker[Item]:
    # A fresh interpreter: forking one that has threads (numpy, grpc, a progress bar) may deadlock.
    context = multiprocessing.get_context("spawn")
    pipe, far_end = context.Pipe()
    process = context.Process(target=_work, args=(far_end, function), daemon=True)
    process.start()
    far_end.close()
    return _Worker(process, pipe, since=time.monotonic())


def _send(worker: _Worker[Any], argument: Any) -> bool:
    try:
        worker.pipe.send(argument)
    except (BrokenPipeError, ConnectionResetError):
        return False  # it died idle; the wait that follows takes it out
    return True


def _receive(worker: _Worker[Item]) -> Any:
    try:
        return worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        return Lost(Loss.DIED, f"its process ended with code {worker.process.exitcode}")


def _end(worker: _Worker[Item]) -> None:
    worker.pipe.close()
    if worker.item is not None or not worker.is_ready:
        worker.process.kill()
    worker.process.join(5.0)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    worker.process.close()


def _work(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """Serve items until the pipe closes: the loop of a worker process."""
    logging.disable()  # a library may quote a header; what matters goes through the pipe
    try:
        pipe.send(None)
        while True:
            pipe.send(_answer(function, pipe.recv()))
    except (EOFError, OSError, KeyboardInterrupt):
        return  # the parent has ended, or was killed


def _answer(function: Callable[[Any], Any], item: Any) -> Any:
    try:
        return function(item)
    except Exception as error:  # a bug of ours must not cost the run: it is told by name and place, not by text
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return Lost(Loss.RAISED, f"{type(error).__name__} in {frame.name}, line {frame.lineno}")
