"""The files of a PACS export: walked in one order, and found again by their local number."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mammofed_shared.pseudonyms import Pseudonyms
from mammofed_site.intake_journal import names_of

_NOT_IMAGES = (".csv", ".txt")


def files_below(folder: Path) -> Iterator[str]:
    """All files below ``folder``, relative to it, in one order; hidden ones, tables and texts are no images."""
    start = len(str(folder)) + 1
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = f"{parent}/"[start:]
        for name in sorted(files):
            if not name.startswith(".") and not name.lower().endswith(_NOT_IMAGES):
                yield inside + name


def locate(folder: Path, prepared: Path, numbers: list[int], names: Pseudonyms) -> Mapping[int, Path]:
    """The files of an export that have these local numbers, as far as they are still there.

    The journal knows a file by the keyed hash of its path, so the export is walked until all are found.
    """
    wanted = names_of(prepared, numbers)
    found: dict[int, Path] = {}
    for path in files_below(folder) if wanted else ():
        number = wanted.get(names.of("file", path))
        if number is not None:
            found[number] = folder / path
            if len(found) == len(wanted):
                break
    return found
