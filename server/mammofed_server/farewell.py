"""A run that is over is told to each site, also when the coordinator was killed before it could: at its next start.

<run's folder>/told.json    sites that have been told
"""

import json
import time
from pathlib import Path

from mammofed_server.sites import SiteBoard
from mammofed_shared.files import write_whole

FAREWELL_S = 30.0
"""How long a coordinator whose run is over waits for sites to ask, so that each learns it."""
_LOOK_AGAIN_S = 0.2


def all_are_told(folder: Path, sites: tuple[str, ...]) -> bool:
    """Whether every site knows that the run in this folder is over."""
    return set(sites) <= _told(folder)


def wait_until_told(folder: Path, board: SiteBoard, sites: tuple[str, ...]) -> None:
    """Answer until each of the sites has been told that the run is over, or ``FAREWELL_S`` have passed.

    A site that has not called since the coordinator started is waited for, too: it may be about to.
    """
    until_s = time.monotonic() + FAREWELL_S
    told = _told(folder)
    while True:
        known = told | {item.site for item in board.snapshot() if item.knows_end}
        if known != told:
            told = known
            write_whole(folder / "told.json", json.dumps(sorted(told)))
        if all(site in told or board.missing(site) for site in sites) or time.monotonic() > until_s:
            return
        time.sleep(_LOOK_AGAIN_S)


def wait_until_stop_is_told(board: SiteBoard) -> None:
    """The same for a run that has stopped and will go on: to those that are there, and nothing is remembered."""
    until_s = time.monotonic() + FAREWELL_S
    while time.monotonic() < until_s and not board.all_know_end():
        time.sleep(_LOOK_AGAIN_S)


def _told(folder: Path) -> set[str]:
    path = folder / "told.json"
    return set(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else set()
