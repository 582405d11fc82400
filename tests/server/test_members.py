"""Members of a run: who joins and leaves between rounds, on disk before it has an effect."""

from pathlib import Path

import pytest

from mammofed_server.run_state import RunState
from mammofed_shared.errors import StateError
from runs import begin_small_run


@pytest.fixture
def run(tmp_path: Path) -> RunState:
    return begin_small_run(tmp_path)


def test_a_run_begins_with_its_sites(run: RunState) -> None:
    members = run.members()
    assert members.of_round(1) == members.of_round(9) == members.ever == ("central", "mayo")
    assert members.asked_to("join") == members.asked_to("leave") == ()


def test_a_request_counts_from_the_round_in_which_it_is_settled(run: RunState) -> None:
    run.members().ask("emory", "join")
    run.members().ask("mayo", "leave")
    members = run.members()
    assert members.asked_to("join") == ("emory",) and members.asked_to("leave") == ("mayo",)
    members.settle(3, joined=["emory"])
    assert members.of_round(2) == ("central", "mayo")
    assert members.of_round(3) == ("central", "emory")
    assert members.ever == ("central", "mayo", "emory"), "a place in the list never changes"
    assert run.members().of_round(3) == ("central", "emory"), "after a restart as well"
    assert members.asked_to("join") == members.asked_to("leave") == ()


def test_a_newcomer_that_is_not_there_yet_stays_asked_for(run: RunState) -> None:
    run.members().ask("emory", "join")
    members = run.members()
    members.settle(1, joined=[])
    assert members.of_round(1) == ("central", "mayo") and members.asked_to("join") == ("emory",)


def test_the_members_of_a_round_that_has_begun_do_not_change(run: RunState) -> None:
    members = run.members()
    members.settle(2, joined=[])
    run.members().ask("emory", "join")
    again = run.members()
    assert again.settled == 2
    again.settle(2, joined=["emory"])
    assert again.of_round(2) == ("central", "mayo") and again.asked_to("join") == ("emory",)
    again.settle(3, joined=["emory"])
    assert again.of_round(3) == ("central", "mayo", "emory")


def test_a_site_may_come_back(run: RunState) -> None:
    for round_number, word in enumerate(("leave", "join"), start=1):
        run.members().ask("central", word)  # type: ignore[arg-type]
        run.members().settle(round_number, joined=["central"] if word == "join" else [])
    members = run.members()
    assert [members.of_round(number) for number in (0, 1, 2)] == [("central", "mayo"), ("mayo",), ("mayo", "central")]
    assert members.ever == ("central", "mayo")


def test_the_last_word_counts(run: RunState) -> None:
    run.members().ask("mayo", "leave")
    run.members().ask("mayo", "join")
    assert run.members().asked_to("leave") == ()
    run.members().ask("emory", "join")
    run.members().ask("emory", "leave")
    assert run.members().asked_to("join") == ()


@pytest.mark.parametrize(
    ("site", "word", "says"),
    [
        ("mayo", "join", "mayo is a member already of this run: central, mayo"),
        ("emory", "leave", "emory is no member of this run: central, mayo"),
        ("../mayo", "join", "cannot be a site"),
        ("", "leave", "cannot be a site"),
    ],
)
def test_a_request_without_sense_is_refused(run: RunState, site: str, word: str, says: str) -> None:
    with pytest.raises(StateError, match=says):
        run.members().ask(site, word)  # type: ignore[arg-type]


def test_a_run_keeps_its_quorum_of_members(run: RunState) -> None:
    run.members().ask("mayo", "leave")
    with pytest.raises(StateError, match="without central the run would have 0 sites; its quorum is 1"):
        run.members().ask("central", "leave")
    with pytest.raises(StateError, match="would have 0 sites; its quorum is 2"):
        run.members().ask("central", "leave", 2)


def test_who_asked_earlier_sees_who_has_joined_since(run: RunState) -> None:
    """The coordinator says farewell with what it opened at its start: a newcomer must hear it, too."""
    at_the_start = run.members()
    assert at_the_start.of_round(2) == ("central", "mayo")
    run.members().ask("emory", "join")
    run.members().settle(2, joined=["emory"])
    assert at_the_start.of_round(2) == at_the_start.ever == ("central", "mayo", "emory")
