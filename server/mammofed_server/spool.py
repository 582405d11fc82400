"""The spool's files and its room: appending what arrives, going back after a kill, a quota, and orphans.

    <folder>/<task>/update.part          bytes of an upload that is under way
    <folder>/<task>/sent.safetensors     an upload that is whole and was checked, where it is encoded
    <folder>/<task>/update.safetensors   the whole update: what was sent, or what was made of it

Room is reserved before the first byte of an upload is kept, so that those under way cannot fill the disk together.
"""

import hashlib
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mammofed_server.disk import SAY_AGAIN_AFTER_S
from mammofed_shared.errors import ConfigurationError, ProtocolError, RefusalCode, Refused
from mammofed_shared.files import write_all
from mammofed_shared.protocol.encoding import payload_bytes
from mammofed_shared.protocol.plan import TASK_ID, Encoding
from mammofed_shared.protocol.task_spec import TaskSpec

logger = logging.getLogger(__name__)

PART_FILE = "update.part"
SENT_FILE = "sent.safetensors"
WHOLE_FILE = "update.safetensors"


class NotNow(Exception):
    """An upload cannot be taken in now, for want of room or because an earlier one of the same update is still open.

    The site shall ask again. The message may cross the wire.
    """


# ── room ────────────────────────────────────────────────────────────────────────────────────────────────────────


def bytes_of_task(spec: TaskSpec, upload: Encoding) -> int:
    """About how many bytes a task takes in the spool: what is sent and, where it is encoded, what is made of it."""
    sent = payload_bytes(spec, upload)
    return sent if upload == "fp32" else sent + payload_bytes(spec, "fp32")


def spool_quota(quota_gb: float | None, num_updates: int, update_bytes: int) -> int | None:
    """The quota in bytes, if there is one.

    Args:
        num_updates: most updates of one turn.
        update_bytes: what one takes in the spool (``bytes_of_task``).

    Raises:
        ConfigurationError: it cannot hold the updates of one turn, for which all of its sites would wait for ever.
    """
    if quota_gb is None:
        return None
    quota = round(quota_gb * 1e9)
    needed = num_updates * update_bytes
    if quota < needed:
        raise ConfigurationError(
            f"server.spool_quota_gb is {quota_gb:g}, but the {num_updates} update(s) of one turn "
            f"take {needed / 1e9:.3g} GB: give it at least that, or leave it out"
        )
    return quota


class SpoolRoom:
    """What uploads under way may still write, against a quota and the disk. Safe to use from every thread."""

    def __init__(self, folder: Path, quota: int | None) -> None:
        self._folder = folder
        self._quota = quota
        self._lock = threading.Lock()
        self._reserved: dict[str, int] = {}
        self._last_said_s = -SAY_AGAIN_AFTER_S

    @contextmanager
    def reserved(self, task: Path, needed: int) -> Iterator[None]:
        """Hold room for a task's folder, which will have ``needed`` bytes when its update is there.

        Raises:
            NotNow: quota or disk have not so much.
        """
        with self._lock:
            self._check(task.name, needed)
            self._reserved[task.name] = needed
        try:
            yield
        finally:
            with self._lock:
                del self._reserved[task.name]

    def _check(self, task: str, needed: int) -> None:
        held = {folder.name: _bytes_in(folder) for folder in _task_folders(self._folder)}
        others = {name for name in (*held, *self._reserved) if name != task}
        taken = sum(max(held.get(name, 0), self._reserved.get(name, 0)) for name in others)
        if self._quota is not None and taken + needed > self._quota:
            self._refuse(needed, f"server.spool_quota_gb leaves {(self._quota - taken) / 1e6:.1f} MB")
        to_come = sum(max(0, size - held.get(name, 0)) for name, size in self._reserved.items() if name != task)
        free = shutil.disk_usage(self._folder).free - to_come
        if needed - held.get(task, 0) > free:
            self._refuse(needed, f"the disk leaves {free / 1e6:.1f} MB")

    def _refuse(self, needed: int, leaves: str) -> None:
        if time.monotonic() - self._last_said_s >= SAY_AGAIN_AFTER_S:
            self._last_said_s = time.monotonic()
            logger.warning("spool: an update needs %.1f MB, %s; its site waits and asks again", needed / 1e6, leaves)
        raise NotNow(f"the coordinator has no room for an update of {needed / 1e6:.1f} MB now")


def _task_folders(folder: Path) -> list[Path]:
    """Folders of tasks; nothing else in the spool is looked at or removed."""
    if not folder.exists():
        return []
    return [path for path in folder.iterdir() if re.fullmatch(TASK_ID, path.name.replace("_", "/")) and path.is_dir()]


def _bytes_in(folder: Path) -> int:
    total = 0
    with suppress(FileNotFoundError):  # the task was forgotten meanwhile
        for path in folder.iterdir():
            with suppress(FileNotFoundError):  # renamed meanwhile
                total += path.stat().st_size
    return total


def remove_orphans(folder: Path, is_needed: Callable[[str], bool]) -> None:
    """Remove what the spool holds of tasks that nothing will ask for again.

    Args:
        is_needed: told the task's id.
    """
    for path in _task_folders(folder):
        if not is_needed(path.name.replace("_", "/")):
            logger.info("spool: what is left of task %s is removed", path.name.replace("_", "/"))
            shutil.rmtree(path, ignore_errors=True)


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def reopen(folder: Path) -> None:
    """Make an update that is whole, but has no verdict, one that is under way: its site's header makes it be judged."""
    part, sent, whole = folder / PART_FILE, folder / SENT_FILE, folder / WHOLE_FILE
    if sent.exists():
        sent.rename(part)
    if part.exists():
        whole.unlink(missing_ok=True)  # it is made again
    elif whole.exists():
        whole.rename(part)


def append(part: Path, offset: int, size: int, chunks: Iterable[bytes]) -> str:
    """Append chunks to a part file from ``offset`` on, make it safe on disk, and give the digest of the whole.

    Raises:
        ProtocolError: the bytes do not start where the file ends, or end before ``size``.
        Refused: TOO_LARGE.
    """
    sha = hashlib.sha256()
    held = part.stat().st_size if part.exists() else 0
    if offset > held:
        raise ProtocolError(f"upload begins at byte {offset}, but {held} are held")
    with part.open("r+b" if part.exists() else "w+b", buffering=0) as file:
        file.truncate(offset)
        _hash_prefix(file.fileno(), offset, sha.update)
        file.seek(offset)
        received = offset
        for chunk in chunks:
            received += len(chunk)
            if received > size:
                raise Refused(RefusalCode.TOO_LARGE, f"{size} bytes announced, more sent")
            sha.update(chunk)
            write_all(file, chunk)
        if received != size:
            raise ProtocolError(f"upload ended after {received} of {size} bytes")
        os.fsync(file.fileno())
    return sha.hexdigest()


def _hash_prefix(descriptor: int, length: int, update: Callable[[bytes], None]) -> None:
    position = 0
    while position < length:
        block = os.pread(descriptor, min(2**22, length - position), position)
        update(block)
        position += len(block)
