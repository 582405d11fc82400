"""Speed of `site-client preprocess` on this machine, one core, 4096 × 3328, each figure beside its target.

    .venv/bin/pip install -e '.[bench]' -c constraints.txt
    .venv/bin/python tests/benchmarks/preprocess.py [--rounds 9] [--files 4] [--indexed 100000]

**Bare** is reading, decoding and resizing the same file, and nothing else. Ours and bare (or another tool) take turns,
file by file, so that a machine that is busy at times is busy for both; each has a process of its own on the same core
(``preprocess_side.py``). A ratio is that of one file's two times, and the median of all is printed with its range. Two
processes are compared with one over the same files, through the pool of the intake. Memory is the peak of the intake's
process above idle, while it indexes files that are no images. The mammograms are phantoms.
"""

import argparse
import functools
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from preprocess_files import SIZE, SYNTAXES, recipe_in, write_files

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.dicom.pool import map_isolated
from mammofed_shared.dicom.preprocess import Prepared, prepare_file
from mammofed_site.preprocess import preprocess

MOST_OF_BARE = {"explicit LE": 3.5, "JPEG lossless": 1.25, "J2K lossless": 1.15}
LEAST_OF_OTHERS = 5.0
LEAST_OF_ONE_PROCESS = 1.8
MOST_MEMORY_MB = 300
_TIMED = {"explicit LE": 200, "JPEG lossless": 80, "J2K lossless": 24}
"""Files that the pool is timed over, after as many that it is given while its processes load their libraries: one of
them may be ready half a second before the other."""

OTHERS = {"authors": "the authors' steps", "medip": "medip 0.2.0"}
HERE = Path(__file__).parent


# ── one core ────────────────────────────────────────────────────────────────────────────────────────────────────


def take_turns(names: tuple[str, str], files: list[Path], num_rounds: int, folder: Path) -> list[tuple[float, float]]:
    """Seconds of both for each file of each round; who is first alternates. An unmeasured round comes before."""
    core = str(max(os.sched_getaffinity(0)))
    sides = [
        subprocess.Popen(
            [sys.executable, str(HERE / "preprocess_side.py"), name, str(folder), core],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for name in names
    ]
    pairs = []
    for number, path in enumerate(itertools.chain(files, *itertools.repeat(files, num_rounds))):
        seconds = [0.0, 0.0]
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            seconds[side] = _ask(sides[side], path)
        pairs.append((seconds[0], seconds[1]))
    for process in sides:
        process.communicate()
    return pairs[len(files) :]


def _ask(side: subprocess.Popen[str], path: Path) -> float:
    assert side.stdin is not None
    assert side.stdout is not None
    side.stdin.write(f"{path}\n")
    side.stdin.flush()
    answer = side.stdout.readline()
    if not answer:
        sys.exit("one side ended: is medip missing? Run .venv/bin/pip install -e '.[bench]' -c constraints.txt")
    return float(answer)


def compare(files: dict[str, list[Path]], folder: Path, num_rounds: int) -> Iterator[str]:
    """Lines of a table: ours beside bare for each syntax, and other tools beside ours on explicit LE."""
    for name in SYNTAXES:
        pairs = take_turns(("ours", "bare"), files[name], num_rounds, folder)
        yield _line(f"{name}: ours / bare", pairs, f"at most {MOST_OF_BARE[name]}")
    for other, called in OTHERS.items():
        pairs = take_turns((other, "ours"), files["explicit LE"], max(1, num_rounds // 3), folder)
        yield _line(f"explicit LE: {called} / ours", pairs, f"at least {LEAST_OF_OTHERS}")


def _line(what: str, pairs: list[tuple[float, float]], target: str) -> str:
    above, below = (1000 * statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    ratios = sorted(one / other for one, other in pairs)
    middle = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f} over {len(ratios)} pairs)"
    return f"{what:<42} {middle:<38} target {target:<14} {above:7.1f} ms / {below:.1f} ms"


# ── two processes ───────────────────────────────────────────────────────────────────────────────────────────────


def files_per_second(files: list[Path], folder: Path, workers: int, num_files: int) -> float:
    """Speed of the pool once its processes are warm."""
    items = itertools.islice(itertools.cycle(files), 2 * num_files)
    results = map_isolated(functools.partial(prepare_file, recipe_in(folder)), items, workers=workers, timeout_s=120.0)
    started, num_timed = 0.0, 0
    for number, (_, result) in enumerate(results, 1):
        assert isinstance(result, Prepared), result
        if number == num_files:
            started = time.perf_counter()
        num_timed += number > num_files
    return num_timed / (time.perf_counter() - started)


def scaling(files: dict[str, list[Path]], folder: Path, num_rounds: int) -> Iterator[str]:
    """Lines of a table: two processes beside one, in turns."""
    for name in SYNTAXES:
        ratios = []
        for _ in range(max(1, num_rounds // 3)):
            one, two = (files_per_second(files[name], folder, workers, _TIMED[name]) for workers in (1, 2))
            ratios.append(two / one)
        middle = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        yield f"{name + ': two processes / one':<42} {middle:<38} target at least {LEAST_OF_ONE_PROCESS}"


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────────────────


def indexing_memory(folder: Path, num_files: int) -> int:
    """Bytes by which the intake's process grows, at its peak, while it indexes so many files that are no images."""
    export = folder / "export"
    for number in range(num_files):
        path = export / f"{number // 1000:04d}" / f"{number:07d}.dcm"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"no DICOM")
    context = multiprocessing.get_context("spawn")
    mine, its_end = context.Pipe()
    process = context.Process(target=_index, args=(its_end, folder))
    process.start()
    its_end.close()
    peak = mine.recv()
    process.join()
    return int(peak)


def _index(pipe: Connection, folder: Path) -> None:
    settings = SiteSettings.model_validate(
        {
            "site": "benchmark",
            "consortium": "benchmark",
            "server": "localhost:1",
            "folder": folder / "site",
            "identity": folder,
            "datasets": [{"name": "export", "dicom": folder / "export"}],
            "text_encoder": folder,
        }
    )
    Path("/proc/self/clear_refs").write_text("5")
    idle = _status("VmRSS")
    preprocess(settings, settings.datasets[0], b"k" * 32)
    pipe.send(_status("VmHWM") - idle)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--files", type=int, default=4, help="phantom mammograms")
    parser.add_argument("--indexed", type=int, default=100_000, help="files whose indexing is measured; 0: none")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mammofed-preprocess-") as name:
        folder = Path(name)
        files = write_files(folder / "phantoms", arguments.files)
        print(f"{arguments.files} phantoms of {SIZE[0]} x {SIZE[1]}, load {os.getloadavg()[0]:.1f}", flush=True)
        for line in compare(files, folder, arguments.rounds):
            print(line, flush=True)
        for line in scaling(files, folder, arguments.rounds) if len(os.sched_getaffinity(0)) > 1 else ():
            print(line, flush=True)
        if arguments.indexed:
            grown = indexing_memory(folder / "memory", arguments.indexed) / 1e6
            print(f"{f'indexing {arguments.indexed:,} files':<42} {f'{grown:.0f} MB above idle':<38} ", end="")
            print(f"target at most {MOST_MEMORY_MB} MB")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
