"""Runs a command with faults in it: `python -m faults.inject FOLDER FAULTS MODULE ARGS…`; the product knows nothing.

A fault (``Fault``) names a call of a function, and what happens there: the process kills itself, the disk is full, a
byte turns. No clock decides when: the n-th call does. Each fault happens as often as it says over all processes that
carry it, because each time leaves a file in FOLDER/fired; so a restarted process may carry it again. FOLDER is this
command's own below the case's `done`; what is told to others, and their process ids, are beside it.

FAULTS is a JSON file with a list of faults, and `start` (how often this command was started) and `warm` (the address of
a process with torch loaded, from which workers are forked without waiting for imports; "" starts the command's own).
"""

import errno
import functools
import importlib
import inspect
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

LOOK_AGAIN_S = 0.01


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, or is done to order the others."""

    does: str
    """`kill`, `tear` (a file, and die), `term`, `freeze`, `raise`, `flip`, `slow`, `tell`, `wait` or `clock`."""
    at: str = ""
    """`module:name@before#2`, `@after#2` (the second call, before or after it), `@half#2` (of ``write_all``: half is
    written), or `@item#2` (when a generator's second item is asked for). Not needed by `clock`."""
    what: str = ""
    """Who is killed (names of processes, `self` among them, or a word of a child's command line; itself if empty), the
    file that is torn (a pattern in the case's folder), the errno, the factor, the name of what is told or waited for,
    the clock's seconds, or for how many it is frozen."""
    rank: int = -1
    """Of the worker in which it happens; -1: in the command itself."""
    kind: str = "train"
    """Of the visit, for a fault in a worker."""
    start: int = 1
    """Happens when the command is started so many times; 0: at every start. A worker belongs to every start."""
    times: int = 1


def fired(folder: Path, number: int) -> int:
    """How often the fault of this number has happened."""
    return len(list((folder / "fired").glob(f"{number}.*")))


def tell(folder: Path, name: str) -> None:
    """Say to all that something has happened."""
    (folder.parent / "told").mkdir(exist_ok=True)
    (folder.parent / "told" / name).touch()


def is_told(folder: Path, name: str) -> bool:
    """Whether it has happened."""
    return (folder.parent / "told" / name).exists()


class Arms:
    """The faults of one process, put where they belong."""

    def __init__(self, folder: Path, faults: Sequence[Fault]) -> None:
        self._folder = folder
        self._faults = faults

    def shift_clock(self) -> None:
        """The command's clock, before anything else is imported."""
        for number, fault in enumerate(self._faults):
            if fault.does == "clock":
                self._has_happened(number, fault)
                _shift_clock(float(fault.what))

    def arm(self, start: int) -> None:
        """Those of the command itself."""
        for number, fault in enumerate(self._faults):
            if fault.does != "clock" and fault.rank < 0 and fault.start in (0, start):
                self._arm(number, fault)

    def arm_worker(self, rank: int, kind: str) -> None:
        """Those of a worker in a visit of this kind."""
        for number, fault in enumerate(self._faults):
            if fault.rank == rank and fault.kind == kind:
                self._arm(number, fault)

    def _arm(self, number: int, fault: Fault) -> None:
        module_name, _, qualified = fault.at.partition("@")[0].partition(":")
        owner: Any = importlib.import_module(module_name)
        *path, name = qualified.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, name, self._wrapped(getattr(owner, name), number, fault))

    def _wrapped(self, function: Callable[..., Any], number: int, fault: Fault) -> Callable[..., Any]:
        """The function, with the fault in its place."""
        moment, _, call = fault.at.partition("@")[2].partition("#")
        happen = functools.partial(self._happen, number, fault)
        if moment == "item":
            return self._generating(function, happen, int(call), fault)
        calls = count(1)

        def is_left() -> bool:
            return fired(self._folder, number) < fault.times

        @functools.wraps(function)
        def wrapped(*args: Any, **named: Any) -> Any:
            is_due = next(calls) >= int(call)
            if is_due and moment == "before":
                happen()
            if is_due and moment == "half" and is_left():
                file, data = args
                function(file, data[: len(data) // 2])
                happen()
            began_s = time.monotonic()
            result = function(*args, **named)
            if fault.does == "slow":
                time.sleep((time.monotonic() - began_s) * (float(fault.what) - 1))
            if is_due and moment == "after":
                happen()
            return result

        return wrapped

    @staticmethod
    def _generating(
        function: Callable[..., Any], happen: Callable[..., Any], call: int, fault: Fault
    ) -> Callable[..., Any]:
        assert inspect.isgeneratorfunction(function), f"{fault.at}: not a generator"

        @functools.wraps(function)
        def generating(*args: Any, **named: Any) -> Iterator[Any]:
            for index, item in enumerate(function(*args, **named), start=1):
                yield happen(item) if index >= call else item

        return generating

    def _has_happened(self, number: int, fault: Fault) -> bool:
        """Note that the fault happens now; False when it has happened often enough."""
        done = self._folder / "fired"
        done.mkdir(exist_ok=True)
        for index in range(fault.times):
            try:
                with (done / f"{number}.{index}").open("x") as file:
                    file.write(str(os.getpid()))
                return True
            except FileExistsError:
                continue
        return False

    def _happen(self, number: int, fault: Fault, item: Any = None) -> Any:
        if not self._has_happened(number, fault):
            return item
        if fault.does == "kill":
            _kill(self._folder, fault.what.split(",") if fault.what else ["self"], signal.SIGKILL)
        elif fault.does == "term":
            _kill(self._folder, fault.what.split(",") if fault.what else ["self"], signal.SIGTERM)
        elif fault.does == "tear":
            _tear(self._folder.parent.parent, fault.what)
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.does == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif fault.does == "raise":
            raise OSError(getattr(errno, fault.what), os.strerror(getattr(errno, fault.what)))
        elif fault.does == "flip":
            return _flipped(item)
        elif fault.does == "tell":
            tell(self._folder, fault.what)
        elif fault.does == "wait":
            while not is_told(self._folder, fault.what):
                time.sleep(LOOK_AGAIN_S)
        else:
            assert fault.does == "slow", fault.does
        return item


def _kill(folder: Path, victims: Sequence[str], number: signal.Signals) -> None:
    for victim in sorted(victims, key=lambda name: name == "self"):  # itself last
        if victim == "self":
            os.kill(os.getpid(), number)
        elif (folder.parent / f"{victim}.pid").exists():
            os.kill(int((folder.parent / f"{victim}.pid").read_text()), number)
        else:
            children = _children(victim)
            assert children, f"no child runs {victim}"
            for child in children:
                os.kill(child, number)


def _children(word: str) -> list[int]:
    """Children of this process, and theirs, whose command line holds the word."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours and pid not in ours}:
        ours |= more
    return sorted(
        pid for pid in ours - {os.getpid()} if word.encode() in (Path("/proc") / str(pid) / "cmdline").read_bytes()
    )


def _tear(folder: Path, pattern: str) -> None:
    """Leave half of a file, the newest of those that the pattern names, and turn a bit in it."""
    path = max(folder.glob(pattern), key=lambda found: found.stat().st_mtime_ns)
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content[: len(content) // 2])


def _flipped(part: Any) -> Any:
    """A message with bytes in ``data``, one bit of which has turned."""
    data = bytearray(part.data)
    data[len(data) // 2] ^= 1
    return type(part)(data=bytes(data))


def _shift_clock(seconds: float) -> None:
    """Let this process believe that it is so much later. Clocks that only count, such as time.monotonic, run on."""
    import datetime

    real_time, real_datetime = time.time, datetime.datetime

    class Shifted(real_datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return real_datetime.now(tz) + datetime.timedelta(seconds=seconds)

    real_gmtime, real_localtime, real_strftime = time.gmtime, time.localtime, time.strftime
    _leave_grpc_the_real_clock()
    # Partials, for a function that a class takes for its own, as logging does with time.localtime, becomes a method.
    time.time = functools.partial(lambda: real_time() + seconds)
    time.time_ns = functools.partial(lambda: round((real_time() + seconds) * 1e9))
    time.gmtime = functools.partial(lambda at=None: real_gmtime(time.time() if at is None else at))
    time.localtime = functools.partial(lambda at=None: real_localtime(time.time() if at is None else at))
    time.strftime = functools.partial(lambda how, at=None: real_strftime(how, time.localtime() if at is None else at))
    datetime.datetime = Shifted  # type: ignore[misc]


def _leave_grpc_the_real_clock() -> None:
    """A deadline is a moment that grpc's Python half computes and its other half, in C, compares with its own clock: on
    a machine whose clock is wrong both are wrong alike."""
    import mammofed_shared.tls13  # noqa: F401  before grpc

    # isort: split
    import grpc._channel  # which grpc itself imports with its first channel
    import grpc._server  # noqa: F401

    real = SimpleNamespace(**vars(time))
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "grpc" and getattr(module, "time", None) is time:
            module.time = real  # type: ignore[attr-defined]


def run_worker(folder: str, faults: str, visit: str, rank: int, connection: Connection) -> None:
    """As ``worker_entry.run``, with the faults of this worker."""
    from mammofed_site import worker_entry

    kind = json.loads((Path(visit) / "visit.json").read_text())["plan"]["kind"]
    Arms(Path(folder), [Fault(**item) for item in json.loads(faults)]).arm_worker(rank, kind)
    worker_entry.run(visit, rank, connection)


def _fork_from(address: str) -> None:
    """Take workers from the forkserver that listens there, not from one of this command's own."""
    from multiprocessing import forkserver, resource_tracker

    server: Any = forkserver._forkserver  # type: ignore[attr-defined]
    server._forkserver_address = address
    server._forkserver_alive_fd = os.pipe()[1]
    server.ensure_running = forkserver.ensure_running = resource_tracker.ensure_running


def warm_address() -> str:
    """The address of this process's own forkserver, with torch loaded, for commands that are started with faults."""
    from multiprocessing import forkserver

    from mammofed_site.visit import warm_up

    warm_up()
    return str(forkserver._forkserver._forkserver_address)  # type: ignore[attr-defined]


def main() -> None:
    """Arm the faults and be the command."""
    folder, order, module_name = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), sys.argv[3]
    faults = [Fault(**item) for item in order["faults"]]
    arms = Arms(folder, faults)
    arms.shift_clock()
    if module_name == "mammofed_site.cli":
        from mammofed_site import visit, worker_entry

        if order["warm"]:
            _fork_from(order["warm"])
        if any(fault.rank >= 0 for fault in faults):
            from faults.inject import run_worker as as_module  # a worker finds it by that name

            run = functools.partial(as_module, str(folder), json.dumps([asdict(fault) for fault in faults]))
            visit.worker_entry = SimpleNamespace(run=run, HEAVY_MODULE=worker_entry.HEAVY_MODULE)  # type: ignore[assignment]
    command = importlib.import_module(module_name)
    arms.arm(order["start"])
    sys.argv = [module_name, *sys.argv[4:]]
    command.main()


if __name__ == "__main__":
    main()
