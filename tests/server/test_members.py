"""Members of a run: who joins and leaves between rounds, on disk before it has an effect."""

from pathlib import Path

import pytest

from mammofed_server.members import Members, ask
from mammofed_server.run_state import RunState
from mammofed_shared.errors import StateError
from runs import begin_small_run


@pytest.fixture
def run(tmp_path: Path) -> RunState:
    return begin_small_run(tmp_path)


def test_a_run_begins_with_its_sites(run: RunState) -> None:
    members = Members(run)
    assert members.of_round(1) == members.of_round(9) == members.ever == ("central", "mayo")
    assert members.asked_to("join") == members.asked_to("leave") == ()


def test_a_request_counts_from_the_round_in_which_it_is_settled(run: RunState) -> None:
    ask(run, "emory", "join")
    ask(run, "mayo", "leave")
    members = Members(run)
    assert members.asked_to("join") == ("emory",) and members.asked_to("leave") == ("mayo",)
    members.settle(3, joined=["emory"])
    assert members.of_round(2) == ("central", "mayo")
    assert members.of_round(3) == ("central", "emory")
    assert members.ever == ("central", "mayo", "emory"), "a place in the list never changes"
    assert Members(run).of_round(3) == ("central", "emory"), "after a restart as well"
    assert members.asked_to("join") == members.asked_to("leave") == ()


def test_a_newcomer_that_is_not_there_yet_stays_asked_for(run: RunState) -> None:
    ask(run, "emory", "join")
    members = Members(run)
    members.settle(1, joined=[])
    assert members.of_round(1) == ("central", "mayo") and members.asked_to("join") == ("emory",)


def test_the_members_of_a_round_that_has_begun_do_not_change(run: RunState) -> None:
    members = Members(run)
    members.settle(2, joined=[])
    ask(run, "emory", "join")
    again = Members(run)
    assert again.settled == 2
    again.settle(2, joined=["emory"])
    assert again.of_round(2) == ("central", "mayo") and again.asked_to("join") == ("emory",)
    again.settle(3, joined=["emory"])
    assert again.of_round(3) == ("central", "mayo", "emory")


def test_a_site_may_come_back(run: RunState) -> None:
    for round_number, word in enumerate(("leave", "join"), start=1):
        ask(run, "central", word)  # type: ignore[arg-type]
        Members(run).settle(round_number, joined=["central"] if word == "join" else [])
    members = Members(run)
    assert [members.of_round(number) for number in (0, 1, 2)] == [("central", "mayo"), ("mayo",), ("mayo", "central")]
    assert members.ever == ("central", "mayo")


def test_the_last_word_counts(run: RunState) -> None:
    ask(run, "mayo", "leave")
    ask(run, "mayo", "join")
    assert Members(run).asked_to("leave") == ()
    ask(run, "emory", "join")
    ask(run, "emory", "leave")
    assert Members(run).asked_to("join") == ()


@pytest.mark.parametrize(
    ("site", "word", "says"),
    [
        ("mayo", "join", "mayo is a member already of run test: central, mayo"),
        ("emory", "leave", "emory is no member of run test: central, mayo"),
        ("../mayo", "join", "cannot be a site"),
        ("", "leave", "cannot be a site"),
    ],
)
def test_a_request_without_sense_is_refused(run: RunState, site: str, word: str, says: str) -> None:
    with pytest.raises(StateError, match=says):
        ask(run, site, word)  # type: ignore[arg-type]
