"""Every site learns that the run is over, whatever became of the coordinator meanwhile."""

import threading
from pathlib import Path

import pytest

from mammofed_server import farewell
from mammofed_server.farewell import all_are_told, wait_until_told
from mammofed_server.sites import SiteBoard

SITES = ("central", "mayo")


def test_who_has_been_told_is_remembered_and_not_waited_for_again(tmp_path: Path) -> None:
    board = SiteBoard(SITES)
    for site in SITES:
        board.hello(site, 1, 1)
        board.told_end(site)

    assert not all_are_told(tmp_path, SITES)
    wait_until_told(tmp_path, board, SITES)

    assert all_are_told(tmp_path, SITES)
    wait_until_told(tmp_path, SiteBoard(SITES), SITES)


def test_a_coordinator_that_started_again_waits_for_sites_that_have_not_called_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = SiteBoard(SITES)
    before.hello("central", 1, 1)
    before.told_end("central")
    monkeypatch.setattr(farewell, "FAREWELL_S", 0.0)
    wait_until_told(tmp_path, before, SITES)
    monkeypatch.undo()
    board = SiteBoard(SITES)
    waiting = threading.Thread(target=wait_until_told, args=(tmp_path, board, SITES))

    waiting.start()
    assert not all_are_told(tmp_path, SITES)
    board.hello("mayo", 1, 1)
    board.told_end("mayo")
    waiting.join()

    assert all_are_told(tmp_path, SITES)


def test_a_site_that_is_silent_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = SiteBoard(SITES)
    board.hello("central", 1, 1)
    board.told_end("central")
    monkeypatch.setattr(board, "missing", lambda site: "silent" if site == "mayo" else "")

    wait_until_told(tmp_path, board, SITES)

    assert all_are_told(tmp_path, ("central",)) and not all_are_told(tmp_path, SITES)
