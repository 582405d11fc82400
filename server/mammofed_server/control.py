"""The lead's hand on a running coordinator: `pause`, `resume`, `cancel`.

A word in a file of the run's folder: whoever may write there may command the run, and there is no network interface
that could be attacked.
"""

import time
from pathlib import Path
from typing import Literal

from mammofed_shared.errors import RunCancelled
from mammofed_shared.files import write_whole

Word = Literal["run", "pause", "cancel"]
_LOOK_AGAIN_S = 0.5


class Control:
    """Reads and writes the lead's word."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "control"

    def say(self, word: Word) -> None:
        """Tell the coordinator, now or when it starts."""
        write_whole(self._path, word)

    def word(self) -> Word:
        """What the lead wants; ``run`` when nothing was said."""
        try:
            word = self._path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return "run"
        return "pause" if word == "pause" else "cancel" if word == "cancel" else "run"

    def wait_for_go(self) -> None:
        """Return when the run may go on.

        Raises:
            RunCancelled: the lead has cancelled it.
        """
        while (word := self.word()) != "run":
            if word == "cancel":
                raise RunCancelled("the run was cancelled with `fl-server cancel`")
            time.sleep(_LOOK_AGAIN_S)
