"""What the three commands share: exit codes, errors as one clear line, and `command key.sub=value` without a verb."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NoReturn

import click
import typer.core
from rich.console import Console

from mammofed_shared.errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    IdentityError,
    MammofedError,
    RunCancelled,
    RunStopped,
    StateError,
    Unreachable,
)
from mammofed_shared.log import SAID

logger = logging.getLogger(__name__)

GRACE_S = 30.0
"""How long a command may take to end after Ctrl-C or SIGTERM."""


class ExitCode(IntEnum):
    """How a command ends; listed for operators in docs/operate/errors.md."""

    OK = 0
    UNEXPECTED = 1
    CONFIGURATION = 2
    IDENTITY = 3
    REFUSED = 4
    DATA = 5
    STOPPED = 6
    CANCELLED = 7
    BAR_MISSED = 8
    TAMPERED = 9
    INCOMPLETE = 10
    INTERRUPTED = 130


_CODES: tuple[tuple[type[MammofedError], ExitCode], ...] = (
    (ConfigurationError, ExitCode.CONFIGURATION),
    (IdentityError, ExitCode.IDENTITY),
    (Unreachable, ExitCode.REFUSED),
    (DataError, ExitCode.DATA),
    (CheckpointError, ExitCode.DATA),
    (StateError, ExitCode.CONFIGURATION),
    (RunStopped, ExitCode.STOPPED),
    (RunCancelled, ExitCode.CANCELLED),
)


class DefaultCommandGroup(typer.core.TyperGroup):
    """A command whose first argument may be left out: `fl-server --config x key=1` means `fl-server run …`."""

    default_command = "run"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default verb in front unless a verb or ``--help`` is there."""
        if not args or (args[0] not in self.commands and args[0] not in ("--help", "-h", "--version")):
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)


def run_command(app: Callable[..., Any]) -> NoReturn:
    """Run a typer app as this process: every error of ours is one message and one exit code.

    The first Ctrl-C (or SIGTERM) ends the command cleanly; what was being done is gone on with at the next start. A
    command that does not come to its end within ``GRACE_S`` is ended: Python may raise the interruption inside a lock's
    release, and grpc then waits for that lock for ever.
    """
    _interrupt_by_signals()
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        code = app(standalone_mode=False)  # typer does not raise but return the code of an Exit, and that of Ctrl-C
        if code == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        if isinstance(code, int):
            raise click.exceptions.Exit(code)
    except MammofedError as error:
        console.print(f"[red]{type(error).__name__}[/red]: ", end="")
        console.print(str(error), markup=False)
        if logging.root.handlers:  # else Python would say it on the terminal a second time
            logger.error("%s: %s", type(error).__name__, error, extra=SAID)
        sys.exit(next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.UNEXPECTED))
    except (KeyboardInterrupt, click.exceptions.Abort):
        console.print("interrupted; start the same command again to go on")
        sys.exit(ExitCode.INTERRUPTED)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.CONFIGURATION)
    sys.exit(ExitCode.OK)


def _interrupt_by_signals() -> None:
    asked, ask = os.pipe()  # a handler may take no lock, so it writes a byte

    def interrupt(number: int, frame: object) -> None:
        os.write(ask, b"!")
        raise KeyboardInterrupt

    threading.Thread(target=_end_when_asked, args=(asked,), daemon=True, name="end-when-asked").start()
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the shell wants it ignored
        signal.signal(signal.SIGINT, interrupt)


def _end_when_asked(asked: int) -> None:
    os.read(asked, 1)
    time.sleep(GRACE_S)
    os.write(2, b"it did not end by itself and was ended; start the same command again to go on\n")
    os._exit(ExitCode.INTERRUPTED)  # all that is kept is on disk, whole, at any moment
