"""The commands that a demo runs: shown to the reader, logged, and all ended when the demo ends."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mammofed_shared.errors import CommandFailed, ConfigurationError

_GRACE_S = 10.0
_TAIL_LINES = 12


@dataclass(frozen=True, slots=True)
class Started:
    """A command that is running, or has run."""

    name: str
    words: tuple[str, ...]
    process: "subprocess.Popen[str]"
    log: Path

    def failure(self) -> CommandFailed:
        """What to tell when it ended with an error."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        said = "\n".join(f"    {line}" for line in lines)
        return CommandFailed(
            f"{shown(self.words)}\nended with code {self.process.returncode}. The last lines of {self.log}:\n{said}"
        )


class Processes:
    """Starts commands, each in a process group of its own, and knows all that it started."""

    def __init__(self, logs: Path, show: Callable[[str], None]) -> None:
        self._logs = logs
        self._show = show
        self._started: list[Started] = []
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, *words: str, quietly: bool = False) -> Started:
        """Start one of our console scripts; what it writes goes to ``<logs>/<name>.log``.

        Args:
            name: of the log; several commands may share it.
            words: the script's name and its arguments.
            quietly: do not show the command.
        """
        if not quietly:
            self._show(shown(words))
        log = self._logs / f"{name}.log"
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {shown(words)}\n")
            file.flush()
            process = subprocess.Popen(
                [script(words[0]), *words[1:]],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # Ctrl-C reaches the demo alone, which ends the others in order
            )
        started = Started(name, words, process, log)
        self._started.append(started)
        return started

    def run(self, name: str, *words: str) -> str:
        """Run one of our console scripts to its end and give what it said.

        Raises:
            CommandFailed: it ended with an error.
        """
        started = self.start(name, *words)
        if started.process.wait() != 0:
            raise started.failure()
        return started.log.read_text(encoding="utf-8").rpartition(f"$ {shown(words)}\n")[2].strip()

    def stop_all(self) -> None:
        """End everything that was started and still runs: first asked, then killed, each by its own id."""
        running = [item.process for item in self._started if item.process.poll() is None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _kill_rest_of_group(process.pid)
        self._started.clear()


def _kill_rest_of_group(group: int) -> None:
    """Kill a worker that outlived its parent, which ended just now."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def script(name: str) -> str:
    """Path of a console script, beside the Python that runs this.

    Raises:
        ConfigurationError: the package is not installed there.
    """
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise ConfigurationError(f"{path} is not there: install the package first, with `make venv`")
    return str(path)


def shown(words: Sequence[str]) -> str:
    """A command as one would type it."""
    return shlex.join(words)
