import signal
import subprocess
import sys
from pathlib import Path

from fuzz.fuzz_notebook import Notebook

DYING = """
import os, pathlib, signal, sys
from fuzz_notebook import Notebook

notebook = Notebook(pathlib.Path(sys.argv[1]))
notebook.begin(b"sound")
notebook.end()
notebook.begin(b"deadly")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_input_of_a_process_that_died_is_known_to_its_parent(tmp_path: Path) -> None:
    notebook = Notebook(tmp_path / "notebook")
    assert (notebook.count, notebook.current) == (0, None)
    command = [sys.executable, "-c", DYING, str(tmp_path / "notebook")]
    ended = subprocess.run(command, cwd=Path(__file__).parent, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (notebook.count, notebook.current) == (2, b"deadly")
    notebook.end()
    assert notebook.current is None


def test_each_place_that_breaks_is_kept_once(tmp_path: Path) -> None:
    notebook = Notebook(tmp_path / "notebook")
    for data in (b"first", b"second"):
        notebook.broken("KeyError in one.py, line 1", data)
    notebook.broken("KeyError in two.py, line 2", b"third")
    kept = sorted(path.read_bytes() for path in tmp_path.glob("broken/*/input"))
    assert kept == [b"first", b"third"]
