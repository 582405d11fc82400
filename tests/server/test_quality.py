"""The question before the first turn: once, to every site; a refusal stops the run and says what to do."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from flwr.app import Message
from rich.console import Console
from typer.testing import CliRunner

from mammofed_server import cli
from mammofed_server.control import Control
from mammofed_server.grid import FileGrid
from mammofed_server.quality import ask_once, quality_table
from mammofed_server.run_state import QualityRecord, RunState
from mammofed_shared.errors import RefusalCode, RunCancelled, RunStopped
from mammofed_shared.protocol.flower import plan_of, refusal_reply, update_reply
from mammofed_shared.protocol.plan import Plan, Update
from mammofed_shared.protocol.quality import TABLES
from runs import begin_small_run
from small_counts import TOLD

Answer = Mapping[str, float] | RefusalCode


class Asked(FileGrid):
    """Answers for every site, the last one first; notes what it was asked and what is forgotten."""

    def __init__(self, **answers: Answer) -> None:
        super().__init__(("central", "mayo"))
        self.answers = answers
        self.plans: list[Plan] = []
        self.forgotten: set[str] = set()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return [self._reply(message) for message in reversed(list(messages))]

    def _reply(self, message: Message) -> Message:
        plan, state = plan_of(message)
        assert state is None
        self.plans.append(plan)
        answer = self.answers.get(plan.site, TOLD)
        if isinstance(answer, RefusalCode):
            return refusal_reply(message, answer)
        return update_reply(message, Update(task_id=plan.task_id, payload=None, metrics=dict(answer)), None)

    def forget(self, task_ids: Iterable[str]) -> None:
        self.forgotten |= set(task_ids)


@pytest.fixture
def run(tmp_path: Path) -> RunState:
    return begin_small_run(tmp_path, evaluation={"when": "never", "sites": ["mayo"]})


def _ask(run: RunState, grid: Asked) -> None:
    ask_once(run, grid, Control(run.folder))


def test_every_site_is_asked_once_and_the_answers_are_committed(
    run: RunState, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    other = {**TOLD, "num_patients": 65.0}
    grid = Asked(mayo=other)
    _ask(run, grid)
    settings = run.record.settings
    assert {plan.task_id for plan in grid.plans} == {f"test/r0000/v00000/{site}/query" for site in ("central", "mayo")}
    assert {(plan.kind, plan.state, plan.preprocessing) for plan in grid.plans} == {
        ("query", None, settings.preprocessing.digest)
    }
    assert run.quality() == QualityRecord(counts={"central": TOLD, "mayo": other})
    assert grid.forgotten == {plan.task_id for plan in grid.plans}
    assert caplog.text.count("images by vendor") == 1, "a table for the reader of the log"
    again = Asked()
    _ask(run, again)
    assert again.plans == [] and again.forgotten == grid.forgotten
    assert caplog.text.count("images by vendor") == 1


def test_refusals_stop_the_run_and_name_each_site_its_code_and_what_it_must_do(run: RunState) -> None:
    grid = Asked(central=RefusalCode.PREPROCESSING_MISMATCH, mayo=RefusalCode.NO_DATA)
    with pytest.raises(RunStopped) as caught:
        _ask(run, grid)
    said = str(caught.value)
    assert "site central: PREPROCESSING_MISMATCH: make `preprocessing` in its YAML equal to the run's" in said
    assert "site mayo: NO_DATA: run `site-client preprocess` there" in said
    assert run.quality() is None


@pytest.mark.parametrize("code", list(RefusalCode))
def test_one_refusal_is_enough_and_every_code_has_a_remedy(run: RunState, code: RefusalCode) -> None:
    with pytest.raises(RunStopped, match=rf"site mayo: {code.name}: .{{20,}} Then start the run again"):
        _ask(run, Asked(mayo=code))


def test_after_a_refusal_a_new_start_asks_every_site_again(run: RunState) -> None:
    grid = Asked(mayo=RefusalCode.NO_DATA)
    with pytest.raises(RunStopped):
        _ask(run, grid)
    assert grid.forgotten == {plan.task_id for plan in grid.plans}, "no verdict is left in the spool"
    again = Asked()
    _ask(run, again)
    assert {plan.site for plan in again.plans} == {"central", "mayo"}
    assert run.quality() is not None


def test_a_cancelled_run_asks_nobody(run: RunState) -> None:
    Control(run.folder).say("cancel")
    grid = Asked()
    with pytest.raises(RunCancelled):
        _ask(run, grid)
    assert grid.plans == []


# ── what the lead sees ──────────────────────────────────────────────────────────────────────────────────────────


def _rows(run: RunState, record: QualityRecord) -> dict[str, list[str]]:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(quality_table(run, record))
    lines = [line.split("  ") for line in captured.get().splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    return {row[0]: row[1:] for row in rows if row}


def test_the_table_shows_each_sites_counts_and_what_is_not_told(run: RunState) -> None:
    withheld = {name: value for name, value in TOLD.items() if "_by_vendor/" not in name}
    record = QualityRecord(counts={"mayo": {**withheld, "num_suppressed_by_vendor": 12.0}, "central": TOLD})
    rows = _rows(run, record)
    assert rows["patients"] == ["65", "65"]
    assert rows["images by vendor"] == ["not told"], "mayo's"
    assert rows["hologic"] == ["160", "·"] and rows["ge"] == ["·", "·"] and rows["siemens"] == ["·", "·"]
    assert "agfa" not in rows, "nobody has it"
    assert rows["presentation"] == ["250", "250"]


def test_a_site_that_tells_nothing_has_a_column_all_the_same(run: RunState) -> None:
    nothing = {table.suppressed: float(len(table.words)) for table in TABLES}
    rows = _rows(run, QualityRecord(counts={"central": nothing, "mayo": nothing}))
    assert rows["images"] == ["·", "·"] and rows["images by view"] == ["not told", "not told"]


def test_the_command_shows_the_table_of_a_run_or_says_that_there_is_none_yet(run: RunState, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(run.record.settings.model_dump_json())
    before = CliRunner().invoke(cli.app, ["quality", "--config", str(config)])
    assert "not every site has told its counts yet" in str(before.exception)
    run.commit_quality(QualityRecord(counts={"central": TOLD, "mayo": TOLD}))
    said = CliRunner().invoke(cli.app, ["quality", "--config", str(config)])
    assert said.exit_code == 0, said.output
    assert "images by vendor" in said.output and "hologic" in said.output
