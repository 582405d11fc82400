"""The lead's word: said once, read by the coordinator whenever it looks."""

import threading
from pathlib import Path

import pytest

from mammofed_server.control import Control
from mammofed_shared.errors import RunCancelled


def test_nothing_said_means_go(tmp_path: Path) -> None:
    assert Control(tmp_path).word() == "run"
    Control(tmp_path).wait_for_go()


@pytest.mark.parametrize("word", ["run", "pause", "cancel"])
def test_a_word_is_heard_by_another_process(tmp_path: Path, word: str) -> None:
    Control(tmp_path).say(word)  # type: ignore[arg-type]
    assert Control(tmp_path).word() == word


@pytest.mark.parametrize("text", ["", "halt", "pause and cancel"])
def test_a_word_that_is_none_of_ours_stops_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "control").write_text(text)
    assert Control(tmp_path).word() == "run"


def test_a_hand_written_word_may_end_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "control").write_text("pause\n")
    assert Control(tmp_path).word() == "pause"


def test_a_paused_run_waits_until_it_is_resumed(tmp_path: Path) -> None:
    control = Control(tmp_path)
    control.say("pause")
    waiting = threading.Thread(target=control.wait_for_go)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    control.say("run")
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_cancelled_run_does_not_go_on(tmp_path: Path) -> None:
    control = Control(tmp_path)
    control.say("cancel")
    with pytest.raises(RunCancelled, match="fl-server cancel"):
        control.wait_for_go()
