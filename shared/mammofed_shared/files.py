"""Writing files whole or not at all, safe against a kill or a power cut at any moment."""

import errno
import os
from io import FileIO
from pathlib import Path


def write_whole(path: Path, data: bytes | str, mode: int = 0o644) -> None:
    """Write ``path`` so that a reader sees the old content or the new one, never a part."""
    raw = data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.writing")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_folder(path.parent)


def write_all(file: FileIO, data: bytes | memoryview) -> None:
    """Write all of ``data`` to an unbuffered file, whose ``write`` may take a part only, as on a full disk."""
    rest = memoryview(data)
    while len(rest):
        rest = rest[file.write(rest) :]


def remove_halves(folder: Path) -> None:
    """Remove files directly in a folder in whose midst a process was killed. Nobody may be writing there now."""
    for half in folder.glob(".*.writing"):
        if half.is_file():
            half.unlink()


def fsync_file(path: Path) -> None:
    """Make what was written to a file survive a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(error: OSError) -> bool:
    """Whether a file could not be written because the disk, or a quota on it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
