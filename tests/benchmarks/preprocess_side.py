"""One side of a comparison, in a process of its own that loads nothing but what this side needs.

    preprocess_side.py WORK FOLDER CORE        reads paths from standard input, answers each with its seconds

What a process has loaded changes how it gets memory: with pydicom, glibc gives a decoder's 27 MB back after each image,
and the same bare decoding takes 28 ms instead of 10. So bare must not pay for what ours has loaded.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2

HEIGHT, WIDTH = 1520, 912
_FOUND_ABOVE = 40
"""8-bit threshold of the authors' box."""
_BORDER = 5
"""Pixels that the authors drop on each side of it."""

Work = Callable[[Path], object]


def ours(folder: Path) -> Work:
    """All that intake does with a file in a worker process."""
    from preprocess_files import recipe_in

    from mammofed_shared.dicom.preprocess import prepare_file

    recipe = recipe_in(folder)
    return lambda path: prepare_file(recipe, path)


def bare(folder: Path) -> Work:
    """Read, decode, resize: no check, no window, no breast, and nothing is written."""
    import dicomsdl

    return lambda path: cv2.resize(dicomsdl.open(str(path)).pixelData(0, storedvalue=True), (WIDTH, HEIGHT))


def authors(folder: Path) -> Work:
    """The steps of the authors' released script, from their description: it finds no breast, side or view."""
    import dicomsdl
    import numpy as np

    def work(path: Path) -> None:
        data_set = dicomsdl.open(str(path))
        values = data_set.pixelData().astype(np.float64)
        if data_set.PhotometricInterpretation == "MONOCHROME1":
            values = values.max() - values
        grey = ((values - values.min()) / (values.max() - values.min()) * 255.0).astype(np.uint8)
        found = np.where(grey <= _FOUND_ABOVE, 0, grey)
        rows, columns = np.flatnonzero(found.std(axis=1) > 0), np.flatnonzero(found.std(axis=0) > 0)
        box = grey[rows[0] + _BORDER : rows[-1] - _BORDER, columns[0] + _BORDER : columns[-1] - _BORDER]
        cv2.imwrite(str(folder / "authors.png"), cv2.resize(box, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))

    return work


def medip(folder: Path) -> Work:
    """medip as its documentation shows it, with its defaults: full size, 16-bit PNG."""
    import medip

    def work(path: Path) -> None:
        done = medip.run(str(path), str(folder / "medip"))
        assert done["success_count"] == 1, done["failures"]

    return work


def main() -> None:
    """Serve until standard input ends."""
    name, folder, core = sys.argv[1:]
    os.sched_setaffinity(0, [int(core)])
    cv2.setNumThreads(1)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    with contextlib.redirect_stdout(sys.stderr):
        work = {"ours": ours, "bare": bare, "authors": authors, "medip": medip}[name](Path(folder))
        for line in sys.stdin:
            started = time.perf_counter()
            work(Path(line.rstrip("\n")))
            answers.write(f"{time.perf_counter() - started}\n")


if __name__ == "__main__":
    main()
