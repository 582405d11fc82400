"""Plays the whole matrix and writes docs/reliability.md: `python -m faults.play`; `make faults` does it.

Two processes of pytest share it: a case mostly waits, for one of its own processes or for a fault to pass.
"""

import subprocess
import sys
from pathlib import Path

from faults import table

REPOSITORY = Path(__file__).parents[2]
NUM_PARTS = 2


def main() -> None:
    """End with an error when a case does not end as it should."""
    output = REPOSITORY / "faults-output"
    output.mkdir(exist_ok=True)
    results = [output / f"results-{part}.xml" for part in range(1, NUM_PARTS + 1)]
    playing = []
    for part, path in enumerate(results, start=1):
        path.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", "tests/faults", "-m", "", f"--part={part}/{NUM_PARTS}"]
        command += [f"--junitxml={path}", "-o", "junit_family=xunit1", f"--basetemp={output}/part-{part}"]
        playing.append(subprocess.Popen(command, cwd=REPOSITORY))
    codes = [process.wait() for process in playing]
    table.write([path for path in results if path.exists()])
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
