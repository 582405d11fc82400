"""What the service keeps of a call, and whom it tells that the run is over."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from federation import Coordinator, coordinator, make_plan, small_state
from identities import Consortium, make_consortium
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_site.link import Link


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return make_consortium(tmp_path_factory.mktemp("consortium"), ["mayo"])


@pytest.fixture
def server(tmp_path: Path, consortium: Consortium) -> Iterator[Coordinator]:
    with coordinator(tmp_path / "spool", consortium, sites=("mayo",)) as running:
        yield running


@pytest.fixture
def link(server: Coordinator, consortium: Consortium) -> Iterator[Link]:
    opened = server.link(consortium, "mayo")
    yield opened
    opened.close()


def test_text_in_place_of_a_task_is_not_kept(server: Coordinator, link: Link) -> None:
    reply = link.poll(pb.PollRequest(state=pb.TRAINING, task_id="a/b/c/Jane Doe/e", step=3))
    assert reply.cancel, "no such task is wanted"
    (mayo,) = server.board.snapshot()
    assert (mayo.task_id, mayo.state, mayo.step) == ("", "training", 3)


def test_progress_of_an_open_task_is_kept(tmp_path: Path, server: Coordinator, link: Link) -> None:
    plan = make_plan(small_state(tmp_path / "state"))
    server.mailbox.put(plan, tmp_path / "state")
    reply = link.poll(pb.PollRequest(state=pb.TRAINING, task_id=plan.task_id, step=3))
    assert not reply.cancel
    assert server.board.snapshot()[0].task_id == plan.task_id


@pytest.mark.parametrize("ending", [pb.FINISHED, pb.CANCELLED, pb.STOPPED])
def test_a_site_in_the_middle_of_a_visit_is_waited_for_until_it_asks_again(
    server: Coordinator, link: Link, ending: pb.RunState
) -> None:
    """It must first kill its worker; a coordinator gone by then would be waited for without end."""
    server.run_state = ending
    assert link.poll(pb.PollRequest(state=pb.TRAINING, task_id="test/r0001/v00001/mayo/train")).cancel
    assert not server.board.all_know_end()
    assert link.poll(pb.PollRequest(state=pb.READY)).run_state == ending
    assert server.board.all_know_end()
