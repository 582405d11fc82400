"""Flower's Grid on files: the mailbox for real sites. Node ids are places in the run's list of sites, from 1."""

from abc import abstractmethod
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from mammofed_server.control import Control
from mammofed_server.mailbox import Mailbox, Outcome
from mammofed_shared.errors import RefusalCode, RunCancelled
from mammofed_shared.protocol.flower import become_flower_task, plan_of, refusal_reply, update_reply
from mammofed_shared.protocol.plan import Update

_LOOK_AGAIN_S = 0.5


class FileGrid(Grid):
    """What every grid of ours has in common: messages carry plans, replies carry files."""

    def __init__(self, sites: tuple[str, ...], *, is_launched_by_flower: bool = False) -> None:
        if not is_launched_by_flower:
            become_flower_task()
        self.sites = sites
        self._run: Run | None = None

    def node_of(self, site: str) -> int:
        """Flower's node id of a site."""
        return self.sites.index(site) + 1

    @abstractmethod
    def forget(self, task_ids: Iterable[str]) -> None:
        """Their turn is committed: nothing of these tasks is needed any more."""

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

    def __init__(self, sites: tuple[str, ...], mailbox: Mailbox, control: Control) -> None:
        super().__init__(sites)
        self._mailbox = mailbox
        self._control = control

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Offer each plan and wait for all outcomes, however long a site takes: there is no deadline to tune.

        Raises:
            RunCancelled: the lead cancelled the run meanwhile.
        """
        waiting: dict[str, Message] = {}
        for message in messages:
            plan, state = plan_of(message)
            waiting[plan.task_id] = message
            self._mailbox.put(plan, state)
        replies: list[Message] = []
        while waiting:
            for outcome in self._mailbox.wait(waiting, _LOOK_AGAIN_S):
                replies.append(self._reply(waiting.pop(outcome.task_id), outcome))
            if self._control.word() == "cancel":
                raise RunCancelled("the run was cancelled with `fl-server cancel`")
        return replies

    def _reply(self, message: Message, outcome: Outcome) -> Message:
        if outcome.refusal is not None:
            return refusal_reply(message, RefusalCode[outcome.refusal])
        update = Update(task_id=outcome.task_id, payload=outcome.payload, metrics=dict(outcome.metrics))
        return update_reply(message, update, self._mailbox.update_path(outcome.task_id))

    def forget(self, task_ids: Iterable[str]) -> None:
        """Clear the spool of these tasks."""
        for task_id in task_ids:
            self._mailbox.forget(task_id)
