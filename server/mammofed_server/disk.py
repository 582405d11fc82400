"""A full disk is waited for: whoever makes room lets the run go on, and nothing that was committed is touched."""

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mammofed_server.control import Control
from mammofed_shared.errors import RunCancelled
from mammofed_shared.files import is_full

logger = logging.getLogger(__name__)
T = TypeVar("T")

LOOK_AGAIN_S = 2.0
SAY_AGAIN_AFTER_S = 60.0


def when_there_is_room(write: Callable[[], T], what: str, needed: int, folder: Path, control: Control) -> T:
    """Give what ``write`` gives, calling it again until the disk has room for it.

    Args:
        write: leaves nothing behind when it fails, and may be called again.
        what: for the warning, such as "the checkpoint of turn 7".
        needed: about how many bytes are written.
        folder: on the disk that is written to.

    Raises:
        RunCancelled: the lead cancelled the run meanwhile.
    """
    last_said_s = -SAY_AGAIN_AFTER_S
    while True:
        try:
            return write()
        except OSError as error:
            if not is_full(error):
                raise
        if control.word() == "cancel":
            raise RunCancelled("the run was cancelled with `fl-server cancel`")
        if time.monotonic() - last_said_s >= SAY_AGAIN_AFTER_S:
            last_said_s = time.monotonic()
            free = shutil.disk_usage(folder).free
            logger.warning(
                "disk full: %s needs %.1f MB, %.1f MB are free where the run's folder is: make room there (other "
                "data, or `checkpoints.keep_last` at the next start). The run waits, and goes on by itself",
                what,
                needed / 1e6,
                free / 1e6,
            )
        time.sleep(LOOK_AGAIN_S)
