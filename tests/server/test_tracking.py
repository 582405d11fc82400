"""A run's released numbers in MLflow, written by the real process and read back from its database."""

import sqlite3
import subprocess
import sys
from pathlib import Path

from federation import METRICS, small_state
from mammofed_server.run_state import EvaluationRecord, QualityRecord
from mammofed_shared.checkpoint import Contribution
from runs import begin_small_run
from small_counts import TOLD


def _track(folder: Path) -> set[tuple[str, float, int]]:
    """Run the tracker to its end; every metric that the database then holds, with its value and step."""
    command = [sys.executable, "-m", "mammofed_server.tracking", str(folder)]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 0
    with sqlite3.connect(folder / "mlflow.db") as database:
        rows = database.execute("SELECT key, value, step FROM metrics").fetchall()
    database.close()
    assert len(rows) == len(set(rows)), "nothing is written twice"
    return set(rows)


def test_a_tracker_that_starts_again_goes_on_and_writes_nothing_twice(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path / "run")
    update = small_state(tmp_path / "update", 2.0)
    contribution = Contribution(
        site="central", task_id="test/r0001/v00001/central/train", update=update, metrics=METRICS
    )
    run.commit(1, 1, (contribution,), (), (tmp_path / "update", update))
    run.commit_quality(QualityRecord(counts={"mayo": TOLD}))
    trained = {("train/central/num_exams", 10.0, 1), ("train/central/loss", 1.5, 1), ("failures", 0.0, 1)}
    trained |= {(f"query/mayo/{name}", value, 0) for name, value in TOLD.items()}

    assert _track(run.folder) == trained

    state = run.manifest(1).state.digest
    run.commit_evaluation(EvaluationRecord(turn=1, round=1, state=state, metrics={"mayo": {"auroc/mass": 0.75}}))

    assert _track(run.folder) == trained | {("evaluate/mayo/auroc/mass", 0.75, 1)}


def test_the_counts_of_a_site_that_joins_later_are_written_when_it_has_told_them(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path / "run")
    run.commit_quality(QualityRecord(counts={"mayo": TOLD}))
    of_mayo = {(f"query/mayo/{name}", value, 0) for name, value in TOLD.items()}
    assert _track(run.folder) == of_mayo

    run.commit_quality(QualityRecord(counts={"mayo": TOLD, "emory": TOLD}))
    assert _track(run.folder) == of_mayo | {(f"query/emory/{name}", value, 0) for name, value in TOLD.items()}


KILLED_WHILE_IT_MAKES_TABLES = """
import os, sys
from pathlib import Path
import mlflow.store.db.utils
import sqlalchemy
from mammofed_server import tracking

def killed(engine):
    with engine.begin() as connection:  # as a migration does, before it notes that it was made
        connection.execute(sqlalchemy.text("CREATE TABLE latest_metrics (run_uuid VARCHAR(32))"))
    os._exit(9)

mlflow.store.db.utils._upgrade_db = killed
tracking.main(Path(sys.argv[1]))
"""


def test_a_tracker_that_was_killed_while_it_made_its_database_makes_it_anew(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path / "run")
    command = [sys.executable, "-c", KILLED_WHILE_IT_MAKES_TABLES, str(run.folder)]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 9
    run.commit_quality(QualityRecord(counts={"mayo": TOLD}))

    assert _track(run.folder) == {(f"query/mayo/{name}", value, 0) for name, value in TOLD.items()}
    assert sorted(path.name for path in run.folder.glob("mlflow.db*")) == ["mlflow.db"]


def test_validations_are_curves_of_forgetting_and_histograms_become_pooled_figures(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path / "run")
    validated = {"received/auroc/mass/d1": 0.5, "sent/recall_at_10/d2": 0.25}
    update = small_state(tmp_path / "update", 2.0)
    contribution = Contribution(
        site="mayo", task_id="test/r0001/v00001/mayo/train", update=update, metrics={**METRICS, **validated}
    )
    run.commit(1, 1, (contribution,), (), (tmp_path / "update", update))
    told = {"auroc/mass": 0.5, "histogram_positive/mass/1100": 20.0, "histogram_negative/mass/1100": 30.0}
    run.commit_evaluation(
        EvaluationRecord(
            turn=1,
            round=1,
            state=run.manifest(1).state.digest,
            metrics={"mayo": told, "central": {**told}, "emory": {}},
        )
    )

    written = {(name, value) for name, value, step in _track(run.folder) if step == 1}

    assert written == {
        ("failures", 0.0),
        ("train/mayo/num_exams", 10.0),
        ("train/mayo/loss", 1.5),
        ("forgetting/mayo/received/auroc/mass/d1", 0.5),
        ("forgetting/mayo/sent/recall_at_10/d2", 0.25),
        ("evaluate/mayo/auroc/mass", 0.5),
        ("evaluate/central/auroc/mass", 0.5),
        ("evaluate/pooled/auroc/mass", 0.5),
        ("evaluate/pooled/auroc_low/mass", 0.25),
        ("evaluate/pooled/auroc_high/mass", 0.75),
        ("evaluate/pooled/num_sites/mass", 2.0),
    }
