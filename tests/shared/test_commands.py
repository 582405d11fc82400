"""How a command ends: each error of ours has its exit code, and its words are in the log, too."""

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mammofed_shared import commands
from mammofed_shared.commands import ExitCode, run_command
from mammofed_shared.errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    IdentityError,
    MammofedError,
    ProtocolError,
    RunCancelled,
    RunStopped,
    StateError,
    Unreachable,
    UnreadableImage,
)
from mammofed_shared.log import start_logging


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Signals and handlers of the tests' own process stay as they are."""
    monkeypatch.setattr(commands.signal, "signal", lambda *_: None)
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    for handler in [handler for handler in logging.root.handlers if handler not in handlers]:
        handler.close()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def _ends(error: BaseException | None) -> int:
    def command(standalone_mode: bool) -> None:
        if error is not None:
            raise error

    with pytest.raises(SystemExit) as caught:
        run_command(command)
    return int(str(caught.value.code))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, ExitCode.OK),
        (ConfigurationError("wrong"), ExitCode.CONFIGURATION),
        (StateError("wrong"), ExitCode.CONFIGURATION),
        (IdentityError("wrong"), ExitCode.IDENTITY),
        (Unreachable("wrong"), ExitCode.REFUSED),
        (DataError("wrong"), ExitCode.DATA),
        (UnreadableImage("blank"), ExitCode.DATA),
        (CheckpointError("wrong"), ExitCode.DATA),
        (RunStopped("wrong"), ExitCode.STOPPED),
        (RunCancelled("wrong"), ExitCode.CANCELLED),
        (ProtocolError("wrong"), ExitCode.UNEXPECTED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    ],
)
def test_each_error_has_its_exit_code(error: BaseException | None, code: ExitCode) -> None:
    assert _ends(error) == code


def test_an_error_is_said_once_on_the_terminal_and_once_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start_logging(tmp_path / "command.log")
    error: MammofedError = IdentityError("the certificate of site mayo has [expired]")
    assert _ends(error) == ExitCode.IDENTITY
    assert capsys.readouterr().err.count("the certificate of site mayo has [expired]") == 1
    assert (tmp_path / "command.log").read_text().count("the certificate of site mayo has [expired]") == 1


def test_without_a_log_an_error_is_still_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    logging.root.handlers.clear()
    assert _ends(ConfigurationError("line 3, seeed: unknown key")) == ExitCode.CONFIGURATION
    assert capsys.readouterr().err == "ConfigurationError: line 3, seeed: unknown key\n"


def test_a_log_is_its_owners_alone(tmp_path: Path) -> None:
    start_logging(tmp_path / "deep/command.log", console=False)
    logging.getLogger("mammofed").info("round 1")
    assert (tmp_path / "deep/command.log").stat().st_mode & 0o777 == 0o600
    assert "mammofed: round 1" in (tmp_path / "deep/command.log").read_text()
    assert sys.stderr not in [getattr(handler, "stream", None) for handler in logging.root.handlers]


HANGS_ON_ITS_WAY_OUT = """
import sys, threading, time
from mammofed_shared import commands

commands.GRACE_S = float(sys.argv[1])

def command(standalone_mode):
    print("runs", flush=True)
    try:
        time.sleep(60)
    finally:
        for _ in range(int(sys.argv[2])):
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()  # as grpc, whose lock an interruption has left taken

commands.run_command(command)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("hangs", "said"), [(0, "interrupted; start"), (1, "it did not end by itself")])
def test_an_interrupted_command_ends_even_where_it_hangs(number: signal.Signals, hangs: int, said: str) -> None:
    grace_s = 0.2 if hangs else 60
    command = [sys.executable, "-c", HANGS_ON_ITS_WAY_OUT, str(grace_s), str(hangs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "runs\n"
        process.send_signal(number)
        told = process.communicate(timeout=30)[1]

    assert process.returncode == ExitCode.INTERRUPTED
    assert said in told
