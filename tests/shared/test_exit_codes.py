"""A command ends with the code that docs/operate/errors.md lists, however it ends."""

import signal

import pytest
import typer

from mammofed_shared.commands import ExitCode, run_command
from mammofed_shared.errors import RunStopped


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (None, ExitCode.OK),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (typer.Exit(ExitCode.BAR_MISSED), ExitCode.BAR_MISSED),
        (RunStopped("round 1: site mayo failed"), ExitCode.STOPPED),
    ],
)
def test_how_a_command_ends_is_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, ending: BaseException | None, code: ExitCode
) -> None:
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setattr("sys.argv", ["command"])
    app = typer.Typer()

    @app.command()
    def run() -> None:
        if ending is not None:
            raise ending

    with pytest.raises(SystemExit) as ended:
        run_command(app)
    assert ended.value.code == code
