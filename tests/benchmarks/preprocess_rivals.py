"""What ``prepare_file`` is measured beside: the bare work, the paper authors' steps, and medip."""

import contextlib
import io
from pathlib import Path

import cv2
import dicomsdl
import medip
import numpy as np

HEIGHT, WIDTH = 1520, 912
_FOUND_ABOVE = 40
"""8-bit threshold of the authors' box."""
_BORDER = 5
"""Pixels that the authors drop on each side of it."""


def bare(path: Path) -> None:
    """Read, decode, resize: no check, no window, no breast, and nothing is written."""
    pixels = dicomsdl.open(str(path)).pixelData(0, storedvalue=True)
    cv2.resize(pixels, (WIDTH, HEIGHT))


def authors(path: Path, out: Path) -> None:
    """The steps of the authors' released script, from their description: it finds no breast, side or view."""
    data_set = dicomsdl.open(str(path))
    values = data_set.pixelData().astype(np.float64)
    if data_set.PhotometricInterpretation == "MONOCHROME1":
        values = values.max() - values
    grey = ((values - values.min()) / (values.max() - values.min()) * 255.0).astype(np.uint8)
    found = np.where(grey <= _FOUND_ABOVE, 0, grey)
    rows, columns = np.flatnonzero(found.std(axis=1) > 0), np.flatnonzero(found.std(axis=0) > 0)
    box = grey[rows[0] + _BORDER : rows[-1] - _BORDER, columns[0] + _BORDER : columns[-1] - _BORDER]
    cv2.imwrite(str(out), cv2.resize(box, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))


def medip_run(path: Path, out: Path) -> None:
    """medip as its documentation shows it, with its defaults: full size, 16-bit PNG."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        done = medip.run(str(path), str(out))
    assert done["success_count"] == 1, done["failures"]
