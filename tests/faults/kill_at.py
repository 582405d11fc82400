"""Runs a command that kills itself (SIGKILL) at a point: `kill_at.py POINT MODULE ARGS…`; see ``inject.Fault``."""

import importlib
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Arm the one fault and be the command."""
    sys.path.append(str(Path(__file__).parents[1]))
    inject = importlib.import_module("faults.inject")
    inject.Arms(Path(tempfile.mkdtemp()), [inject.Fault("kill", sys.argv[1])]).arm(1)
    command = importlib.import_module(sys.argv[2])
    sys.argv = sys.argv[2:]
    command.main()


if __name__ == "__main__":
    main()
