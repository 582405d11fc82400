"""What the terminal shows of the joint run."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from demo_run import small_run
from mammofed_server.status import RunStatus, SiteLine
from mammofed_simulation.demo.folder import DemoFolder
from mammofed_simulation.demo.watching import Lines, LiveTable


def status(turn: int) -> RunStatus:
    line = SiteLine(
        site="mayo",
        state="training",
        kind="train",
        round=1,
        visit=1,
        epoch=0,
        step=5,
        num_steps=15,
        loss=2.0,
        samples_per_s=40.0,
        steps_per_s=5.0,
        last_seen=0.0,
        num_training_exams=120,
    )
    return RunStatus(
        run="small",
        state="running",
        turn=turn,
        num_turns=18,
        round=1,
        num_rounds=6,
        eta_s=None,
        written=0.0,
        state_digest="",
        skipped=(),
        sites=(line,),
        evaluation={},
    )


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


def test_every_turn_has_one_line_once_it_is_evaluated(tmp_path: Path, output: io.StringIO) -> None:
    run = small_run(tmp_path)
    evaluation = run.evaluation_path(1)
    later = evaluation.rename(tmp_path / "later")
    with Lines(Console(file=output, width=200), DemoFolder(tmp_path)) as lines:
        lines.show(status(0))
        lines.show(status(1))
        assert len(output.getvalue().splitlines()) == 1
        later.rename(evaluation)
        lines.show(status(1))
        lines.show(status(1))
    first, second = output.getvalue().splitlines()
    assert "turn  0 of 18, round 0: before any training; mass AUROC central 0.50, mayo 0.50, emory 0.50" in first
    assert "turn  1 of 18, round 1: central (loss 1.50); mass AUROC central 0.75" in second


def test_terminal_has_the_table_and_events_above_it(output: io.StringIO) -> None:
    console = Console(file=output, force_terminal=True, width=160)
    with LiveTable(console) as table:
        table.show(status(1))
        table.say("killed site-client of mayo")
        table.show(status(2))
    drawn = output.getvalue()
    assert "killed site-client of mayo" in drawn
    assert drawn.rindex("turn 2/18") > drawn.index("killed site-client of mayo")
    assert "5/15" in drawn
