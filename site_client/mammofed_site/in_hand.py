"""Which task this site has in hand, on disk: a veto ends it also when it came while no client ran.

<site folder>/in-hand    a task id; there while the task is neither done nor refused
"""

import re
import shutil

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.files import write_whole
from mammofed_shared.protocol.plan import TASK_ID
from mammofed_site.visit import visit_folder


class InHand:
    """Remembers the task in hand, and forgets it with all that was made for it."""

    def __init__(self, settings: SiteSettings) -> None:
        self._settings = settings
        self._path = settings.folder / "in-hand"

    def take(self, task_id: str) -> None:
        """From now on this task is in hand."""
        write_whole(self._path, task_id)

    def let_go(self) -> None:
        """The task has ended, well or not."""
        self._path.unlink(missing_ok=True)

    def task_id(self) -> str | None:
        """The task in hand, if there is one."""
        try:
            found = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return found if re.fullmatch(TASK_ID, found) else None

    def destroy(self, task_id: str) -> None:
        """Remove all that came and was made for a task: state, checkpoint, half and whole results."""
        shutil.rmtree(visit_folder(self._settings, task_id), ignore_errors=True)
