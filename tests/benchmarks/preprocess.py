"""Speed of `site-client preprocess` on this machine, one core, 4096 × 3328, each figure beside its target.

    .venv/bin/pip install -e '.[bench]' -c constraints.txt
    .venv/bin/python tests/benchmarks/preprocess.py [--rounds 9] [--files 4] [--indexed 100000]

**Bare** is reading, decoding and resizing the same file, and nothing else. Ours and bare (or another tool) take turns,
file by file, so that a machine that is busy at times is busy for both; a ratio is that of one file's two times, and the
median of all is printed with its range. Two processes are compared with one over the same files, through the pool of the
intake. Memory is the peak of the intake's process above idle, while it indexes files that are no images. The mammograms
are phantoms.
"""

import argparse
import functools
import itertools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

try:
    from preprocess_rivals import HEIGHT, WIDTH, authors, bare, medip_run
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is missing: run .venv/bin/pip install -e '.[bench]' -c constraints.txt")

import cv2
from preprocess_files import SIZE, SYNTAXES, write_files

from mammofed_shared.config.import_profile import ImportProfile
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.dicom.pool import map_isolated
from mammofed_shared.dicom.preprocess import Prepared, Recipe, prepare_file
from mammofed_site.preprocess import preprocess

MOST_OF_BARE = {"explicit LE": 3.5, "JPEG lossless": 1.25, "J2K lossless": 1.15}
LEAST_OF_OTHERS = 5.0
LEAST_OF_ONE_PROCESS = 1.8
MOST_MEMORY_MB = 300
_WARM_UP = 16
"""Files that the pool is given before the clock starts: its processes are loading their libraries."""

Work = Callable[[Path], object]


# ── one core ────────────────────────────────────────────────────────────────────────────────────────────────────


def take_turns(ours: Work, other: Work, files: list[Path], num_rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of both for each file of each round; who is first alternates. An unmeasured round comes before."""
    ours_s, other_s = [], []
    for number, path in enumerate(itertools.chain(files[:2], *itertools.repeat(files, num_rounds))):
        pair = [(ours, ours_s), (other, other_s)]
        for work, seconds in pair if number % 2 == 0 else pair[::-1]:
            started = time.perf_counter()
            work(path)
            seconds.append(time.perf_counter() - started)
    return ours_s[2:], other_s[2:]


def compare(ours: Work, files: dict[str, list[Path]], folder: Path, num_rounds: int) -> Iterator[str]:
    """Lines of a table: ours beside bare for each syntax, and beside other tools on explicit LE."""
    for name in SYNTAXES:
        ours_s, bare_s = take_turns(ours, bare, files[name], num_rounds)
        ratios = sorted(mine / yours for mine, yours in zip(ours_s, bare_s, strict=True))
        yield _line(f"{name}: ours / bare", ours_s, bare_s, ratios, f"at most {MOST_OF_BARE[name]}")
    others = {"the authors' steps": lambda path: authors(path, folder / "authors.png")}
    others["medip 0.2.0"] = lambda path: medip_run(path, folder / "medip")
    for name, other in others.items():
        ours_s, other_s = take_turns(ours, other, files["explicit LE"], max(1, num_rounds // 3))
        ratios = sorted(yours / mine for mine, yours in zip(ours_s, other_s, strict=True))
        yield _line(f"explicit LE: {name} / ours", ours_s, other_s, ratios, f"at least {LEAST_OF_OTHERS}")


def _line(what: str, ours_s: list[float], other_s: list[float], ratios: list[float], target: str) -> str:
    mine, yours = (1000 * statistics.median(seconds) for seconds in (ours_s, other_s))
    middle = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f} over {len(ratios)} pairs)"
    return f"{what:<40} {middle:<42} target {target:<14} ours {mine:6.1f} ms, other {yours:7.1f} ms"


# ── two processes ───────────────────────────────────────────────────────────────────────────────────────────────


def files_per_second(recipe: Recipe, files: list[Path], workers: int, num_files: int) -> float:
    """Speed of the pool once its processes are warm."""
    items = itertools.islice(itertools.cycle(files), _WARM_UP + num_files)
    results = map_isolated(functools.partial(prepare_file, recipe), items, workers=workers, timeout_s=120.0)
    started, num_timed = 0.0, 0
    for number, (_, result) in enumerate(results, 1):
        assert isinstance(result, Prepared), result
        if number == _WARM_UP:
            started = time.perf_counter()
        num_timed += number > _WARM_UP
    return num_timed / (time.perf_counter() - started)


def scaling(recipe: Recipe, files: dict[str, list[Path]], num_rounds: int) -> Iterator[str]:
    """Lines of a table: two processes beside one, in turns."""
    for name in SYNTAXES:
        num_files = 48 if name == "explicit LE" else 16
        ratios = []
        for _ in range(max(1, num_rounds // 3)):
            one, two = (files_per_second(recipe, files[name], workers, num_files) for workers in (1, 2))
            ratios.append(two / one)
        middle = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        yield f"{name + ': two processes / one':<40} {middle:<42} target at least {LEAST_OF_ONE_PROCESS}"


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
    cv2.setNumThreads(1)
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="mammofed-preprocess-") as name:
        folder = Path(name)
        files = write_files(folder / "phantoms", arguments.files)
        recipe = Recipe(PreprocessingSettings(height=HEIGHT, width=WIDTH), ImportProfile(), b"k" * 32, folder / "out")
        print(f"{arguments.files} phantoms of {SIZE[0]} x {SIZE[1]}, load {os.getloadavg()[0]:.1f}", flush=True)
        os.sched_setaffinity(0, cores[-1:])
        for line in compare(functools.partial(prepare_file, recipe), files, folder, arguments.rounds):
            print(line, flush=True)
        os.sched_setaffinity(0, cores)
        for line in scaling(recipe, files, arguments.rounds) if len(cores) > 1 else ():
            print(line, flush=True)
        if arguments.indexed:
            grown = indexing_memory(folder / "memory", arguments.indexed) / 1e6
            print(f"{f'indexing {arguments.indexed:,} files':<40} {f'{grown:.0f} MB above idle':<42} ", end="")
            print(f"target at most {MOST_MEMORY_MB} MB")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
