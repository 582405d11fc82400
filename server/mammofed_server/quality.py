"""The question before a run's first turn: what data does each site hold, and is it what the run asks for?

Every site of the run is asked, also one that only evaluates. It answers with protected counts, or refuses; then the run
stops before anything is trained, because sites that disagree on what a training image is must not train together.
"""

import logging
from collections.abc import Iterable, Mapping

from flwr.app import Message
from rich import box
from rich.console import Console, Group
from rich.table import Table

from mammofed_server.control import Control
from mammofed_server.disk import when_there_is_room
from mammofed_server.grid import FileGrid
from mammofed_server.plans import PlanMaker
from mammofed_server.run_state import QualityRecord, RunState
from mammofed_shared.errors import RefusalCode, RunStopped
from mammofed_shared.protocol.flower import plan_message, update_of
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.protocol.quality import STEP, TABLES, TOTALS, CountTable
from mammofed_shared.protocol.statement import Countersigned

logger = logging.getLogger(__name__)

_REMEDIES = {
    RefusalCode.NO_DATA: "run `site-client preprocess` there, and look at what it refused",
    RefusalCode.PREPROCESSING_MISMATCH: "make `preprocessing` in its YAML equal to the run's, and run "
    "`site-client preprocess` there again",
    RefusalCode.TEXT_ENCODER_MISMATCH: "copy the run's text-encoder folder there, with nothing added",
}
_OTHER_REMEDY = "its log says why; see docs/operate/errors.md"


def ask_once(run: RunState, grid: FileGrid, control: Control) -> None:
    """Ask every site for its counts and commit them, unless all have answered before.

    Raises:
        RunStopped: a site refused; the message says which, why and what to do. A new start asks every site again.
        RunCancelled: the lead cancelled the run meanwhile.
    """
    settings = run.record.settings
    plan_maker = PlanMaker(run, run.schedule())
    plans = {site: plan_maker.query(site) for site in settings.sites}
    if run.quality() is not None:
        grid.forget(plan.task_id for plan in plans.values())  # killed between commit and forget
        return
    control.wait_for_go()
    messages = [plan_message(plan, None, grid.node_of(site)) for site, plan in plans.items()]
    replies = grid.send_and_receive(messages)
    counts: dict[str, Mapping[str, float]] = {}
    signed: dict[str, Countersigned] = {}
    refusals: dict[str, RefusalCode] = {}
    for site, reply in _by_site(grid, replies):
        if reply.has_error():
            refusals[site] = RefusalCode(reply.error.code)
        else:
            update, _ = update_of(reply)
            counts[site] = update.metrics
            if update.signed is not None:
                signed[site] = update.signed
    if not refusals:
        record = QualityRecord(counts=counts, signed=signed)
        when_there_is_room(lambda: run.commit_quality(record), "the sites' counts", 2**20, run.folder, control)
        logger.info("every site has told its counts\n%s", _as_text(quality_table(run, record)))
    grid.forget(plan.task_id for plan in plans.values())
    if refusals:
        raise RunStopped(_explained(refusals))


def ask_newcomer(run: RunState, grid: FileGrid, plan: Plan) -> bool:
    """Ask a site that wants to join for its counts; True once they are committed.

    A refusal, or a site that went away meanwhile, stops nothing: it may join a round later.
    """
    held = run.quality() or QualityRecord(counts={})
    (reply,) = grid.send_and_receive([plan_message(plan, None, grid.node_of(plan.site))])
    if reply.has_error():
        code = RefusalCode(reply.error.code)
        logger.error("site %s cannot join yet: %s: %s", plan.site, code.name, _REMEDIES.get(code, _OTHER_REMEDY))
    else:
        update, _ = update_of(reply)
        signed = {name: item for name, item in held.signed.items() if name != plan.site}
        if update.signed is not None:
            signed[plan.site] = update.signed
        counts = {**held.counts, plan.site: update.metrics}
        record = QualityRecord(counts=counts, signed=signed, answers=held.num_answers + 1)
        run.commit_quality(record)
        logger.info("site %s has told its counts\n%s", plan.site, _as_text(quality_table(run, record)))
    grid.forget([plan.task_id])
    return not reply.has_error()


def _by_site(grid: FileGrid, replies: Iterable[Message]) -> list[tuple[str, Message]]:
    return sorted((grid.sites[reply.metadata.src_node_id - 1], reply) for reply in replies)


def _explained(refusals: Mapping[str, RefusalCode]) -> str:
    sites = "; ".join(
        f"site {site}: {code.name}: {_REMEDIES.get(code, _OTHER_REMEDY)}" for site, code in refusals.items()
    )
    return f"nothing was trained, for not every site holds what the run asks for. {sites}. Then start the run again."


def quality_table(run: RunState, record: QualityRecord) -> Group:
    """What the sites told: a column a site, a row a number; a word that no site has is left out. With its legend."""
    first = [site for site in run.record.settings.sites if site in record.counts]
    sites = [*first, *(site for site in record.counts if site not in first)]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for site in sites:
        table.add_column(site, justify="right")
    for name in TOTALS:
        table.add_row(name.removeprefix("num_"), *(_shown(record.counts[site], name) for site in sites))
    for part in TABLES:
        _add_part(table, part, [record.counts[site] for site in sites])
    heading = f"run {run.record.settings.run} · what the sites hold, rounded to {STEP}"
    return Group(heading, table, "·  not told: too few patients, or hidden so that such a number cannot be computed")


def _add_part(table: Table, part: CountTable, counts: list[Mapping[str, float]]) -> None:
    telling = [numbers for numbers in counts if numbers[part.suppressed] < len(part.words)]
    table.add_section()
    table.add_row(f"[bold]{part.unit} by {part.by}[/bold]", *("" if item in telling else "not told" for item in counts))
    for word in part.words:
        name = part.cell(word)
        if any(numbers.get(name, 1) for numbers in telling):  # some, or hidden
            table.add_row(f"  {word}", *(_shown(numbers, name) for numbers in counts))


def _shown(numbers: Mapping[str, float], name: str) -> str:
    return f"{numbers[name]:,.0f}" if name in numbers else "·"


def _as_text(shown: Group) -> str:
    console = Console(width=120, color_system=None)
    with console.capture() as captured:
        console.print(shown)
    return captured.get().rstrip()
