"""Flower's Grid on files: the mailbox for real sites. Node ids are places in the run's list of sites, from 1."""

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable

from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from mammofed_server.attendance import Attendance
from mammofed_server.control import Control
from mammofed_server.mailbox import Mailbox, Outcome
from mammofed_server.members import Members
from mammofed_server.run_state import LedgerOfRun
from mammofed_server.sites import SiteBoard
from mammofed_shared.errors import RefusalCode, RunCancelled
from mammofed_shared.protocol.flower import base_of, become_flower_task, plan_of, refusal_reply, update_reply
from mammofed_shared.protocol.plan import Plan, Update

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.5
SAY_AGAIN_AFTER_S = 300.0


class FileGrid(Grid):
    """What every grid of ours has in common: messages carry plans, replies carry files."""

    def __init__(self, sites: tuple[str, ...], *, is_launched_by_flower: bool = False) -> None:
        if not is_launched_by_flower:
            become_flower_task()
        self.sites = sites
        self.attendance: Attendance | None = None
        """Of the round that trains now: without which of its visits it may go on."""
        self.ledger: LedgerOfRun | None = None
        """The run's ledger, where whoever made this grid has it open; one process writes it once."""
        self._run: Run | None = None

    def node_of(self, site: str) -> int:
        """Flower's node id of a site."""
        return self.sites.index(site) + 1

    def admit(self, site: str) -> None:
        """Know a site that joined the run; it gets the next node id."""
        if site not in self.sites:
            self.sites = (*self.sites, site)

    def is_there(self, site: str) -> bool:
        """Whether a newcomer has connected. Only the mailbox has sites that come and go."""
        return False

    @abstractmethod
    def forget(self, task_ids: Iterable[str]) -> None:
        """Their turn is committed: nothing of these tasks is needed any more."""

    def clear(self, is_needed: Callable[[str], bool]) -> None:
        """Remove what earlier starts left of tasks whose id ``is_needed`` does not know."""

    def set_run(self, run: Run) -> None:
        """Keep Flower's record of the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's record of the run."""
        if self._run is None:
            raise RuntimeError("no run was set")
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message as Flower's built-in strategies make them."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """One node a site."""
        return range(1, len(self.sites) + 1)

    def get_nodes(self) -> Iterable[NodeInfo]:
        """One node a site."""
        return [NodeInfo(node_id=node_id) for node_id in self.get_node_ids()]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Not offered: a plan's reply may take hours, and only ``send_and_receive`` survives a restart."""
        raise NotImplementedError("use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Not offered; see ``push_messages``."""
        raise NotImplementedError("use send_and_receive")


class MailboxGrid(FileGrid):
    """Sends plans to real sites through the mailbox."""

    def __init__(
        self, sites: tuple[str, ...], mailbox: Mailbox, control: Control, board: SiteBoard, members: Members
    ) -> None:
        super().__init__(sites)
        self._members = members
        self._mailbox = mailbox
        self._control = control
        self._board = board
        self._said: dict[str, float] = {}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Offer each plan and wait for all outcomes, however long a site takes: there is no deadline to tune.

        A site that is silent, or has stalled at its own pace, is waited for as ``attendance`` says.

        Raises:
            RunCancelled: the lead cancelled the run meanwhile.
        """
        waiting: dict[str, Message] = {}
        plans: dict[str, Plan] = {}
        for message in messages:
            plan, state = plan_of(message)
            waiting[plan.task_id], plans[plan.task_id] = message, plan
            if plan.kind == "train":
                self._board.begin_round(plan.round)
            self._mailbox.put(plan, state, base_of(message))
        replies: list[Message] = []
        while waiting:
            for outcome in self._mailbox.wait(waiting, _LOOK_AGAIN_S):
                replies.append(self._reply(waiting.pop(outcome.task_id), outcome))
                self._note(plans[outcome.task_id], outcome)
            self._give_up([plans[task_id] for task_id in waiting])
            if self._control.word() == "cancel":
                raise RunCancelled("the run was cancelled with `fl-server cancel`")
        return replies

    def _note(self, plan: Plan, outcome: Outcome) -> None:
        if plan.kind != "train":
            return
        self._board.concluded(plan.site, plan.round, "contributed" if outcome.refusal is None else "refused")
        if outcome.refusal is not None and self.attendance is not None:
            self.attendance.miss(plan.task_id)

    def _give_up(self, waiting: Iterable[Plan]) -> None:
        for plan in waiting:
            why = self._board.missing(plan.site)
            if why and self._may_be_given_up(plan):
                logger.error("site %s is %s: round %d goes on without its %s", plan.site, why, plan.round, plan.kind)
                code = RefusalCode.VETOED if why == "vetoed" else RefusalCode.ABSENT
                self._mailbox.give_up(plan.task_id, code)
                return  # one at a time: what may be missed next depends on it
            if why:
                self._say_waiting(plan, why)

    def _may_be_given_up(self, plan: Plan) -> bool:
        if plan.kind == "query":
            return plan.round > 0  # a newcomer's: it may join a round later
        is_leaving = plan.site in self._members.asked_to("leave")
        if self.attendance is None or plan.kind == "evaluate":
            return is_leaving or (self.attendance is not None and self.attendance.may_skip_evaluations)
        if is_leaving:
            self.attendance.leave(plan.site)
        present = [site for site in self.sites if not self._board.missing(site)]
        return self.attendance.may_be_given_up(plan.task_id, present)

    def is_there(self, site: str) -> bool:
        """Whether a site has called and can be counted on now."""
        return self._board.is_there(site)

    def admit(self, site: str) -> None:
        """Know a site that joined the run."""
        super().admit(site)
        self._board.admit(site)

    def _say_waiting(self, plan: Plan, why: str) -> None:
        now = time.monotonic()
        if now - self._said.get(plan.site, -SAY_AGAIN_AFTER_S) >= SAY_AGAIN_AFTER_S:
            self._said[plan.site] = now
            logger.warning(
                "site %s is %s (last heard %.0f s ago); round %d waits for it: see to its `site-client`",
                plan.site, why, self._board.silent_s(plan.site), plan.round,
            )  # fmt: skip

    def _reply(self, message: Message, outcome: Outcome) -> Message:
        if outcome.refusal is not None:
            return refusal_reply(message, RefusalCode[outcome.refusal])
        update = Update(
            task_id=outcome.task_id,
            payload=outcome.payload,
            decoded=outcome.decoded,
            metrics=dict(outcome.metrics),
            signed=outcome.signed,
        )
        return update_reply(message, update, self._mailbox.update_path(outcome.task_id))

    def forget(self, task_ids: Iterable[str]) -> None:
        """Clear the spool of these tasks."""
        for task_id in task_ids:
            self._mailbox.forget(task_id)

    def clear(self, is_needed: Callable[[str], bool]) -> None:
        """Clear the spool of all other tasks."""
        self._mailbox.clear(is_needed)
