"""Everything that is made to go wrong, as data. ``test_matrix.py`` plays it, ``table.py`` writes docs/reliability.md.

A case ends as its ``result`` says: mostly in the weights of the run that nothing disturbed, to the bit. Points are
calls of functions of the product, by their names; one that is gone fails its case.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from faults.inject import Fault
from faults.proxy import Line, Trouble

Schedule = Literal["alternating", "fedavg"]
SAME_BITS = "same bits"
NEVER = "never"
"""Nobody tells it: who is held until then is not started again."""
WITHOUT_IT = "the run, without it"
PARTS = {
    "coordinator": """`fl-server` is killed (SIGKILL) and started again. Sites wait for it; a plan that is offered again
finds its outcome, or its half upload.""",
    "site": """The parent of `site-client` is killed and started again. Its workers end with it.""",
    "worker": """A worker of a site is killed, as by a system that lacks memory. The site goes on by itself, from the
visit's checkpoint if there is one; three deaths in a row without progress are told to the coordinator
(`WORKER_DIED`).""",
    "all": """Several processes at once, or one of them again and again.""",
    "frozen": """A process stands still (SIGSTOP), as in a virtual machine that is moved, and goes on.""",
    "torn file": """A process is killed, and a file of its has lost its second half and holds a wrong bit.""",
    "disk": """A file cannot be written, twice in a row (`ENOSPC`; caches: `EROFS`). Nobody restarts anything: each side
waits for room, and says so in its log.""",
    "line": """Between a site and the coordinator stands a proxy with this fault. Bytes decide when it comes.""",
    "clock": """The clock of one side is wrong; certificates begin 15 minutes before they are made.""",
    "pace": """Settings are as for sites of equal speed.""",
    "tracking": """What MLflow holds in the end is compared number by number with the run's own files.""",
}
"""Headings of the table, and what is done there."""
EVERYTHING = "server,central,self"
CHECKPOINTS_EACH_STEP = "worker.checkpoint_every_min=0"


@dataclass(frozen=True)
class Case:
    """One run in which something goes wrong."""

    name: str
    """What goes wrong; with the schedule it names the case."""
    part: str
    """Heading in the table."""
    schedule: Schedule = "alternating"
    faults: Mapping[str, tuple[Fault, ...]] = field(default_factory=dict)
    """Of `server` (the coordinator) and of the sites."""
    lines: Mapping[str, Line] = field(default_factory=dict)
    """Bad lines to the coordinator."""
    result: str = SAME_BITS
    ends: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Exit codes, besides those of a kill, with which a process may end and is started again."""
    holds: Mapping[str, str] = field(default_factory=dict)
    """Who is started again only after what was told; after ``NEVER``, not at all."""
    server: tuple[str, ...] = ()
    """Settings laid over the coordinator's YAML."""
    sites: tuple[str, ...] = ()
    """Settings laid over each site's YAML."""
    processes: int = 1
    """That train together at each site."""
    has_begun: bool = True
    """Whether the first state is made when the case begins."""
    is_cold: bool = False
    """Whether sites load torch themselves, as in life; else their workers are forked from one process of all cases."""
    is_port_taken: bool = False
    """Whether a stranger listens on the coordinator's port when it starts again, once."""
    restarts: Mapping[str, int] = field(default_factory=dict)
    """How often each must have been started again."""
    is_calm: bool = False
    """Whether no site may have anything to complain of, once it is connected."""
    run: Mapping[str, object] = field(default_factory=dict)
    """Other settings of the run; it then ends in other weights than the undisturbed one."""

    @property
    def id(self) -> str:
        """Its name in the tests and in the table."""
        return f"{self.part}: {self.name} ({self.schedule})"

    def faults_of(self, who: str) -> tuple[Fault, ...]:
        """What happens in the processes of the coordinator or a site."""
        return self.faults.get(who, ())


def kill(at: str, what: str = "", start: int = 1) -> Fault:
    """The process ends as by `kill -9`, and with it those that ``what`` names."""
    return Fault("kill", at, what, start=start)


def fail(at: str, what: str = "ENOSPC", times: int = 2, rank: int = -1) -> Fault:
    """A file cannot be written, so many times."""
    return Fault("raise", at, what, times=times, rank=rank)


def in_worker(does: str, at: str, what: str = "", rank: int = 0, kind: str = "train") -> Fault:
    """In a worker of the site."""
    return Fault(does, at, what, rank=rank, kind=kind)


_COORDINATOR = {
    "each site but one has told its counts": "mammofed_server.mailbox:check_metrics@before#2",
    "all counts are committed": "mammofed_server.run_state:RunState.commit_quality@after#1",
    "before a plan is offered": "mammofed_server.mailbox:Mailbox.put@before#3",
    "a plan is offered": "mammofed_server.mailbox:Mailbox.put@after#3",
    "a site is being told its plan": "mammofed_server.service:plan_to_wire@before#3",
    "in the midst of a download": "mammofed_server.service:FederationService.fetch@item#4",
    "in the midst of an upload": "mammofed_server.spool:write_all@before#4",
    "an update is whole but not judged": "mammofed_server.mailbox:check_tensors@before#2",
    "an update is judged, the verdict is not written": "mammofed_server.mailbox:Mailbox._conclude@before#4",
    "an update is accepted, its site does not know": "mammofed_server.mailbox:Mailbox._conclude@after#4",
    "an update is accepted, no checkpoint": "mammofed_server.run_state:RunState.commit@before#2",
    "a checkpoint has its state, no manifest": "mammofed_shared.checkpoint:write_whole@before#2",
    "a checkpoint is written, not renamed": "mammofed_shared.checkpoint:write_whole@after#2",
    "a checkpoint is committed": "mammofed_server.run_state:RunState.commit@after#2",
    "a turn's updates are being removed": "mammofed_server.mailbox:Mailbox.forget@before#4",
    "an evaluation came back, nothing is written": "mammofed_server.run_state:RunState.commit_evaluation@before#1",
    "an evaluation is written": "mammofed_server.run_state:RunState.commit_evaluation@after#1",
    "the last turn is done, the run has no end": "mammofed_server.run_state:RunState.end@before#1",
    "the run has its end, no site knows": "mammofed_server.run_state:RunState.end@after#1",
}

_AGGREGATION = {
    "in the midst of the mean": "mammofed_server.folding:mean@before#9",
    "the mean is written, no checkpoint": "mammofed_server.strategies:fold@after#1",
}

_PARENT = {
    "the coordinator knows it, no plan yet": "mammofed_site.client:SiteClient._introduce@after#1",
    "counted, nothing sent": "mammofed_site.app:tell_once@after#1",
    "a plan has come": "mammofed_site.client:plan_from_wire@after#2",
    "in the midst of the download": "mammofed_site.link:write_all@before#4",
    "the download is whole": "mammofed_site.link:fsync_folder@before#1",
    "the plan is permitted": "mammofed_site.app:permit@after#2",
    "in the middle of an epoch": "mammofed_site.visit:_note_progress@before#2",
    "trained, the result has not its name": "mammofed_site.visit:_follow@after#2",
    "trained, the result has its name": "mammofed_site.visit:fsync_folder@before#2",
    "trained and released, nothing sent": "mammofed_site.app:release@after#2",
    "at the beginning of the upload": "mammofed_site.link:_parts@item#1",
    "in the midst of the upload": "mammofed_site.link:_parts@item#4",
    "at the end of the upload": "mammofed_site.link:_parts@item#9",
    "accepted, not written down": "mammofed_site.link:Link.submit@after#2",
    "accepted, large files not removed": "mammofed_site.client:remove_large_files@before#2",
    "evaluated, nothing sent": "mammofed_site.app:tell_evaluation@after#3",
}

_WORKER = {
    "before the first step": "mammofed_shared.training.visit:accumulate_gradients@before#1",
    "in the middle of an epoch": "mammofed_shared.training.visit:accumulate_gradients@before#3",
    "trained, before its result": "mammofed_shared.training.visit:write_payload@before#1",
    "in the midst of its result": "mammofed_shared.protocol.payload:write_all@before#9",
    "its update is written, its numbers are not": "mammofed_shared.training.visit:write_whole@before#3",
}

QUICK = {
    "coordinator: in the midst of a download (alternating)",
    "coordinator: an update is judged, the verdict is not written (fedavg)",
    "coordinator: a checkpoint is written, not renamed (alternating)",
    "coordinator: the run has its end, no site knows (fedavg)",
    "coordinator: in the midst of the mean (fedavg)",
    "site: in the midst of the upload (alternating)",
    "site: in the middle of an epoch (fedavg)",
    "worker: in the midst of its result (alternating)",
    "all: every process dies at once (fedavg)",
    "line: bits turn on the way (alternating)",
    "disk: the coordinator's is full in the midst of an upload (alternating)",
    "disk: a site's is full in the midst of a download (alternating)",
}

_SCHEDULES: tuple[Schedule, ...] = ("alternating", "fedavg")


def _kills() -> Iterator[Case]:
    for schedule in _SCHEDULES:
        for name, at in {**_COORDINATOR, **(_AGGREGATION if schedule == "fedavg" else {})}.items():
            # A turn of FedAvg has one checkpoint for two visits; what is the second there is the first here.
            yield Case(name, "coordinator", schedule, {"server": (kill(at),)}, restarts={"server": 1})
        for name, at in _PARENT.items():
            yield Case(name, "site", schedule, {"mayo": (kill(at),)}, restarts={"mayo": 1})
        for name, at in _WORKER.items():
            yield Case(name, "worker", schedule, {"mayo": (in_worker("kill", at),)})


def _more_workers() -> Iterator[Case]:
    step = "mammofed_shared.training.visit:accumulate_gradients@before#3"
    yield Case(
        "in the middle of an epoch, each step kept",
        "worker",
        faults={"mayo": (in_worker("kill", step),)},
        sites=(CHECKPOINTS_EACH_STEP,),
    )
    yield Case(
        "in the midst of its checkpoint",
        "worker",
        faults={"mayo": (in_worker("kill", "mammofed_shared.protocol.payload:write_all@before#9"),)},
        sites=(CHECKPOINTS_EACH_STEP,),
    )
    yield Case(
        "while it counts",
        "worker",
        faults={"mayo": (in_worker("kill", "mammofed_site.worker:write_quality_counts@before#1", kind="query"),)},
    )
    yield Case(
        "while it evaluates",
        "worker",
        faults={
            "mayo": (
                in_worker("kill", "mammofed_shared.training.evaluation_visit:load_state@after#1", kind="evaluate"),
            )
        },
    )
    for rank in (0, 1):
        yield Case(
            f"process {rank} of a group of two, in the middle of an epoch",
            "worker",
            faults={"mayo": (in_worker("kill", step, rank=rank),)},
            processes=2,
        )
    yield Case(
        "the process that workers are forked from, between visits",
        "worker",
        faults={"mayo": (kill("mammofed_site.client:plan_from_wire@before#2", "multiprocessing.forkserver"),)},
        is_cold=True,
    )
    yield Case(
        "the process that workers are forked from, in a visit",
        "worker",
        faults={"mayo": (kill("mammofed_site.visit:_note_progress@before#2", "multiprocessing.forkserver"),)},
        is_cold=True,
    )


def _together() -> Iterator[Case]:
    epoch, upload = "mammofed_site.visit:_note_progress@before#2", "mammofed_site.link:_parts@item#4"
    for schedule in _SCHEDULES:
        both = {"server": 1, "mayo": 1}
        all_three = {**both, "central": 1}
        yield Case(
            "coordinator and site at once, in the midst of an upload",
            "all",
            schedule,
            {"mayo": (kill(upload, "server,self"),)},
            restarts=both,
        )
        yield Case(
            "coordinator and site at once, in the midst of a download",
            "all",
            schedule,
            {"mayo": (kill("mammofed_site.link:write_all@before#4", "server,self"),)},
            restarts=both,
        )
        yield Case(
            "all sites at once, in the middle of an epoch",
            "all",
            schedule,
            {"mayo": (kill(epoch, "central,self"),)},
            restarts={"central": 1, "mayo": 1},
        )
        yield Case(
            "every process dies at once", "all", schedule, {"mayo": (kill(epoch, EVERYTHING),)}, restarts=all_three
        )
        yield Case(
            "every process is asked to end at once (SIGTERM)",
            "all",
            schedule,
            {"mayo": (Fault("term", epoch, EVERYTHING),)},
            restarts=all_three,
        )
    yield Case(
        "a site three times, each time further on",
        "all",
        faults={"mayo": (kill("mammofed_site.link:write_all@before#4"), kill(epoch, start=2), kill(upload, start=3))},
        restarts={"mayo": 3},
    )
    yield Case(
        "the coordinator three times, once while it takes up a half upload",
        "all",
        faults={
            "server": (
                kill("mammofed_server.spool:write_all@before#4"),
                kill("mammofed_server.spool:_hash_prefix@before#1", start=2),
                kill("mammofed_shared.checkpoint:write_whole@after#1", start=3),
            )
        },
        restarts={"server": 3},
    )
    yield Case(
        "a site twice at the same place",
        "all",
        faults={"mayo": (kill(epoch), kill(epoch, start=2))},
        restarts={"mayo": 2},
    )
    yield Case(
        "the coordinator is down for a whole visit",
        "all",
        faults={
            "mayo": (
                kill("mammofed_site.app:permit@after#2", "server"),
                Fault("tell", "mammofed_site.app:release@after#2", "trained"),
            )
        },
        holds={"server": "trained"},
        restarts={"server": 1},
    )
    yield Case(
        "the coordinator's port is taken when it comes back",
        "all",
        faults={"server": (kill("mammofed_server.run_state:RunState.commit@after#2"),)},
        ends={"server": (2,)},
        is_port_taken=True,
        restarts={"server": 2},
    )
    yield Case(
        "the coordinator dies before its run has begun",
        "all",
        faults={"server": (kill("mammofed_server.run_state:write_checkpoint@after#1"),)},
        has_begun=False,
        restarts={"server": 1},
    )


def _frozen() -> Iterator[Case]:
    yield Case(
        "the coordinator stands still for 3 s, in the midst of a download",
        "frozen",
        faults={"server": (Fault("freeze", "mammofed_server.service:FederationService.fetch@item#4", "3"),)},
    )
    yield Case(
        "a site stands still for 3 s, in the middle of an epoch",
        "frozen",
        faults={"mayo": (Fault("freeze", "mammofed_site.visit:_note_progress@before#2", "3"),)},
    )
    yield Case(
        "a worker stands still for 3 s",
        "frozen",
        faults={"mayo": (in_worker("freeze", "mammofed_shared.training.visit:accumulate_gradients@before#3", "3"),)},
    )
    yield Case(
        "coordinator and site stand still for 65 s, one after the other",
        "frozen",
        "fedavg",
        faults={
            "server": (Fault("freeze", "mammofed_server.spool:write_all@before#4", "65"),),
            "mayo": (Fault("freeze", "mammofed_site.link:write_all@before#4", "65"),),
        },
    )


def _torn() -> Iterator[Case]:
    step = "mammofed_site.visit:_note_progress@before#3"
    for what, at, pattern in (
        ("a visit's order", step, "mayo/visits/*train/visit.json"),
        ("a visit's checkpoint", step, "mayo/visits/*train/checkpoint.safetensors"),
        ("a visit's result", "mammofed_site.app:release@before#2", "mayo/visits/*train/result/update.safetensors"),
        ("half a download", "mammofed_site.link:write_all@before#4", "mayo/visits/*train/*.part"),
    ):
        yield Case(
            what, "torn file", faults={"mayo": (Fault("tear", at, pattern),)}, sites=(CHECKPOINTS_EACH_STEP,),
            restarts={"mayo": 1},
        )  # fmt: skip
    at = "mammofed_server.spool:write_all@before#5"
    yield Case(
        "half an upload",
        "torn file",
        faults={"server": (Fault("tear", at, "server/spool/*/update.part"),)},
        restarts={"server": 1},
    )


def _disks() -> Iterator[Case]:
    for schedule in _SCHEDULES:
        yield Case(
            "the coordinator's is full in the midst of an upload",
            "disk",
            schedule,
            {"server": (fail("mammofed_server.spool:write_all@before#4"),)},
        )
        yield Case(
            "the coordinator's is full when it commits",
            "disk",
            schedule,
            {"server": (fail("mammofed_shared.checkpoint:write_whole@before#1"),)},
        )
    for name, at in (
        ("the coordinator's is full when it writes a verdict", "mammofed_server.mailbox:write_whole@before#3"),
        ("the coordinator's is full when it writes its status", "mammofed_server.status:write_whole@before#2"),
        ("the coordinator's is full when it commits the counts", "mammofed_server.run_state:write_whole@before#1"),
        ("the coordinator's is full when it writes its ledger", "mammofed_shared.ledger:append_line@before#3"),
        ("the coordinator's takes half a line of its ledger", "mammofed_shared.ledger:write_all@half#3"),
        ("the coordinator's is full when it offers a plan", "mammofed_server.mailbox:Mailbox.put@before#3"),
        ("the coordinator's is full when it ends the run", "mammofed_server.run_state:RunState.end@before#1"),
    ):
        yield Case(name, "disk", faults={"server": (fail(at),)})
    for name, at in (
        ("a site's is full in the midst of a download", "mammofed_site.link:write_all@before#4"),
        ("a site's is full when it writes a visit's order", "mammofed_site.visit:write_whole@before#2"),
        ("a site's is full when it writes its audit record", "mammofed_site.audit:Audit.write@before#5"),
        ("a site's is full when it writes its ledger", "mammofed_shared.ledger:append_line@before#3"),
        ("a site's takes half a line of its ledger", "mammofed_shared.ledger:write_all@half#3"),
    ):
        yield Case(name, "disk", faults={"mayo": (fail(at),)})
    for name, at in (
        ("a site's is full when a worker writes its result", "mammofed_shared.training.visit:write_payload@before#1"),
        ("a site's is full when a worker writes its numbers", "mammofed_shared.training.visit:write_whole@before#3"),
    ):
        yield Case(name, "disk", faults={"mayo": (fail(at, rank=0),)})
    yield Case(
        "a site's caches are read-only",
        "disk",
        faults={"mayo": (fail("mammofed_shared.report.token_file:TokenFile._connect@before#1", "EROFS", 1, rank=0),)},
    )


def _lines() -> Iterator[Case]:
    slow = Line(4_000_000)
    yield Case("4 Mbit/s each way", "line", lines={"mayo": slow}, is_calm=True)
    yield Case("4 Mbit/s each way, all sites", "line", "fedavg", lines={"central": slow, "mayo": slow}, is_calm=True)
    for schedule in _SCHEDULES:
        yield Case(
            "a storm of resets, every 300 kB",
            "line",
            schedule,
            lines={"mayo": Line(0, (Trouble("reset", "down", 300_000, 6), Trouble("reset", "up", 300_000, 6)))},
        )
        yield Case(
            "bits turn on the way",
            "line",
            schedule,
            lines={"mayo": Line(0, (Trouble("corrupt", "down", 1_000_000), Trouble("corrupt", "up", 1_000_000)))},
        )
    yield Case(
        "nothing passes for 8 s, in the midst of an upload",
        "line",
        lines={"mayo": Line(0, (Trouble("stall", "up", 1_000_000, seconds=8),))},
    )
    yield Case(
        "half-open: the midst of a download and of an upload are never heard of again",
        "line",
        "fedavg",
        lines={
            "central": Line(0, (Trouble("half-open", "down", 1_000_000),)),
            "mayo": Line(0, (Trouble("half-open", "up", 1_000_000),)),
        },
    )
    yield Case(
        "cut for 65 s, in the midst of a download and of an upload",
        "line",
        "fedavg",
        lines={
            "central": Line(0, (Trouble("cut", "down", 1_000_000, seconds=65),)),
            "mayo": Line(0, (Trouble("cut", "up", 1_000_000, seconds=65),)),
        },
    )
    yield Case(
        "a bit turns in a chunk, after it was encrypted and decrypted",
        "line",
        faults={"server": (Fault("flip", "mammofed_server.gate:_requests@item#4"),)},
    )


def _clocks() -> Iterator[Case]:
    for who, name in (("server", "the coordinator's"), ("mayo", "a site's")):
        for seconds, word in (("600", "10 min fast"), ("-600", "10 min slow")):
            yield Case(f"{name} is {word}", "clock", faults={who: (Fault("clock", what=seconds),)})


def _paces() -> Iterator[Case]:
    step = "mammofed_shared.training.visit:accumulate_gradients@before#1"
    for schedule in _SCHEDULES:
        yield Case(
            "a site is 20 times slower", "pace", schedule, {"mayo": (in_worker("slow", step, "20"),)}, is_calm=True
        )
    yield Case(
        "a site never returns; `on_absence: skip`, `quorum: 1`",
        "pace",
        faults={"mayo": (kill("mammofed_site.app:permit@after#2"),)},
        result=WITHOUT_IT,
        holds={"mayo": NEVER},
        run={"on_absence": "skip", "quorum": 1},
    )


def _tracking() -> Iterator[Case]:
    on = ("tracking.enabled=true",)
    commit = "mammofed_server.run_state:RunState.commit@after#2"
    yield Case(
        "MLflow's process dies",
        "tracking",
        faults={"server": (kill(commit, "mammofed_server.tracking"),)},
        server=on,
    )
    yield Case(
        "the coordinator dies while numbers are written",
        "tracking",
        faults={"server": (kill(commit),)},
        server=on,
        restarts={"server": 1},
    )


CASES: tuple[Case, ...] = tuple(
    case
    for make in (_kills, _more_workers, _together, _frozen, _torn, _disks, _lines, _clocks, _paces, _tracking)
    for case in make()
)


def is_quick(case: Case) -> bool:
    """Whether `make test` plays the case."""
    return case.id in QUICK
