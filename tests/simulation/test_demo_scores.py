"""AUROCs of the demo from released numbers and from scores that stay at the hospitals."""

from pathlib import Path

import pytest

from demo_run import CSV, SITES, small_run
from federation import METRICS
from mammofed_server.run_state import RunState
from mammofed_shared.errors import DataError
from mammofed_simulation.demo.results import ALL
from mammofed_simulation.demo.scores import Scored, aurocs, curve, last_of, read_scores


def scored(*rows: tuple[bool, float]) -> list[Scored]:
    return [Scored("mass", label, score) for label, score in rows]


def test_pooled_auroc_ranks_exams_of_all_hospitals_against_each_other() -> None:
    # Each hospital ranks its own exams perfectly; between them, mayo's negatives lie above central's positives.
    found = aurocs({"central": scored((True, 0.2), (False, 0.1)), "mayo": scored((True, 0.9), (False, 0.8))})
    assert found["mass"] == {"central": 1.0, "mayo": 1.0, ALL: 0.75}


def test_hospital_with_one_class_has_no_auroc_but_counts_in_the_pooled_one() -> None:
    found = aurocs({"central": scored((True, 0.9)), "mayo": scored((False, 0.1), (True, 0.5))})
    assert found["mass"] == {"central": None, "mayo": 1.0, ALL: 1.0}
    assert found["calcification"] == {"central": None, "mayo": None, ALL: None}


def test_scores_of_unknown_label_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(CSV + "e1,d,mass,1,0.25\ne2,d,mass,,0.5\ne3,d,calcification,0,-0.125\n")
    assert read_scores(path) == [Scored("mass", True, 0.25), Scored("calcification", False, -0.125)]


@pytest.mark.parametrize("content", [None, "exam,finding\ne1,mass\n", CSV + "e1,d,mass,1,high\n"])
def test_scores_that_cannot_be_read_are_an_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "scores.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match="expected the scores of an evaluation"):
        read_scores(path)


@pytest.fixture
def run(tmp_path: Path) -> RunState:
    return small_run(tmp_path)


def test_curve_holds_released_aurocs_of_hospitals_and_the_pooled_one(run: RunState, tmp_path: Path) -> None:
    before, after = curve(run, tmp_path / "sites", SITES)
    assert before.trained == ()
    assert before.loss is None
    assert before.auroc["mass"] == {"central": 0.5, "mayo": 0.5, "emory": 0.5, ALL: 0.0}
    assert after.trained == ("central",)
    assert after.loss == METRICS["loss"]
    assert after.auroc["mass"] == {"central": 0.75, "mayo": 0.75, "emory": 0.75, ALL: 1.0}
    assert after.auroc["calcification"] == {"central": None, "mayo": None, "emory": None, ALL: None}
    assert after.density_accuracy == {"central": 0.5, "mayo": 0.5, "emory": 0.5}


def test_last_state_of_a_run_comes_with_seed_and_steps(run: RunState, tmp_path: Path) -> None:
    found = last_of(run.folder, SITES, tmp_path / "sites")
    assert (found.seed, found.num_steps) == (7, 15)
    assert found.auroc["mass"][ALL] == 1.0


def test_site_whose_evaluation_failed_is_named(run: RunState, tmp_path: Path) -> None:
    record = run.evaluation(1)
    assert record is not None
    metrics = {site: values for site, values in record.metrics.items() if site != "mayo"}
    run.commit_evaluation(record.model_copy(update={"metrics": metrics}))
    with pytest.raises(DataError, match="turn 1 was not evaluated at mayo"):
        curve(run, tmp_path / "sites", SITES)
