"""The commands that a demo starts: logged, checked, and ended with it."""

import time
from pathlib import Path

import pytest

from mammofed_shared.errors import CommandFailed, ConfigurationError
from mammofed_simulation.demo.processes import Processes, script


@pytest.fixture
def shown() -> list[str]:
    return []


@pytest.fixture
def processes(tmp_path: Path, shown: list[str]) -> Processes:
    return Processes(tmp_path / "logs", shown.append)


def test_command_is_shown_logged_and_its_words_are_given(
    processes: Processes, shown: list[str], tmp_path: Path
) -> None:
    processes.run("first", "python", "-c", "print('of an earlier command')")
    assert processes.run("first", "python", "-c", "print('a'); print('b c')") == "a\nb c"
    assert shown[1] == """python -c 'print('"'"'a'"'"'); print('"'"'b c'"'"')'"""
    assert "of an earlier command" in (tmp_path / "logs/first.log").read_text()


def test_failed_command_tells_its_code_and_last_words(processes: Processes) -> None:
    with pytest.raises(CommandFailed, match=r"ended with code 3(?s:.*)no such hospital"):
        processes.run("bad", "python", "-c", "import sys; print('no such hospital'); sys.exit(3)")


def test_all_that_still_runs_is_ended_and_no_child_of_it_stays(processes: Processes, tmp_path: Path) -> None:
    child = tmp_path / "child"
    parent = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(child)!r}).write_text(str(child.pid))\n"
        "time.sleep(60)"
    )
    started = processes.start("long", "python", "-c", parent)
    while not child.exists() or not child.read_text():
        time.sleep(0.02)
    assert started.process.poll() is None
    processes.stop_all()
    assert started.process.returncode is not None
    until = time.monotonic() + 5
    while not is_gone(int(child.read_text())) and time.monotonic() < until:
        time.sleep(0.02)
    assert is_gone(int(child.read_text()))


def is_gone(pid: int) -> bool:
    """Whether a process is over; one that nobody has waited for yet is."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_script_that_is_not_installed_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="make venv"):
        script("fl-nothing")
