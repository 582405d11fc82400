"""The demo of risk: what it writes, what it reads of hospitals, and what it counts."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from mammofed_shared.config.loading import load
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.simulation import SimulationSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.data.features import views_of
from mammofed_shared.errors import ConfigurationError, DataError
from mammofed_shared.exam import Exam, Split
from mammofed_shared.interpretability.pointing import in_boxes
from mammofed_simulation.demo_risk.configuration import joint_run_file, write_site
from mammofed_simulation.demo_risk.discrimination import ALL, Score, last_scores, row_of, teacher_scores
from mammofed_simulation.demo_risk.reasons import Reasons, planted_exams
from mammofed_simulation.demo_risk.results import RiskResults
from mammofed_simulation.demo_risk.runs import AUTOENCODER, HEADS, write_runs
from mammofed_simulation.demo_risk.summary import print_summary
from mammofed_simulation.hospitals import FOLLOWED, write_hospital
from mammofed_site.preprocess import preprocess
from runs import begin_small_run

ROOT = Path(__file__).parents[2]
SITES = ("central", "mayo", "emory")


def test_a_demo_that_is_not_finished_is_no_frozen_model(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/run.yaml").touch()
    with pytest.raises(ConfigurationError, match="run `make demo` first"):
        joint_run_file(tmp_path)


def test_runs_are_written_as_simulations_that_can_be_run_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    files = {site: tmp_path / f"{site}.yaml" for site in SITES}
    runs = write_runs(tmp_path, 7, tmp_path / "encoder", files)

    assert {one.task for one in runs} == {AUTOENCODER, *HEADS} and len(runs) == 3 + 2 * len(SITES)
    for one in runs:
        simulation = load(one.folder / "simulation.yaml", SimulationSettings)
        run = load(simulation.run, RunSettings)
        assert (run.run, run.seed, run.task.name, run.encoder) == (one.name, 7, one.task, tmp_path / "encoder")
        assert simulation.folder == one.result and run.server.folder == one.result / "server"
        assert run.evaluation_sites == SITES
        if one.name in (AUTOENCODER, *HEADS):
            assert run.training_sites == SITES
        else:  # as many epochs of its own data as the joint run takes
            joint = load(ROOT / f"configs/run/demo-{one.task}.yaml", RunSettings)
            assert run.training_sites == (one.name.removeprefix(f"{one.task}-"),)
            assert run.schedule.rounds * run.schedule.epochs == joint.schedule.rounds * joint.schedule.epochs


def test_boxes_of_planted_masses_lie_on_bright_places_of_prepared_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    hospital = write_hospital("emory", tmp_path / "pacs", 1, hospitals=FOLLOWED, patients=12, workers=1)
    settings, path = write_site(tmp_path, "emory", hospital, tmp_path / "encoder")
    assert load(path, SiteSettings) == settings and settings.encoder == tmp_path / "encoder"
    preprocess(settings, settings.datasets[0], hospital.key)
    planted = planted_exams(settings, hospital)

    assert planted and all(item.exam.labels["mass"] and item.exam.split is Split.TEST for item in planted)
    for item in planted:
        images = views_of(item.exam)
        assert set(item.boxes) <= set(images)
        for place, boxes in item.boxes.items():
            grey = cv2.imread(str(images[place].path), cv2.IMREAD_GRAYSCALE)
            assert grey is not None
            inside = in_boxes(boxes, (grey.shape[0], grey.shape[1]))
            assert inside.any()
            assert grey[inside].mean() > np.percentile(grey[grey > 0], 75)


def _exam(number: int, years_to_cancer: int | None, teacher: tuple[float, ...] | None, split: Split) -> Exam:
    return Exam(
        f"e{number}",
        f"p{number}",
        "d",
        split,
        None,
        (),
        years_to_cancer=years_to_cancer,
        years_followed=3,
        teacher=teacher,
    )


def test_years_whose_outcome_nobody_knows_do_not_count() -> None:
    risks = (0.1, 0.2, 0.3, 0.4, 0.5)
    free = _exam(1, None, risks, Split.TEST)
    ill = _exam(2, 2, risks, Split.TEST)
    others = [_exam(3, 2, None, Split.TEST), _exam(4, 2, risks, Split.TRAIN)]

    assert [score.year for score in teacher_scores([free])] == ["year1", "year2", "year3"]
    found = teacher_scores([ill, *others])
    assert [score.has_cancer for score in found] == [False, False, True, True, True]
    assert [score.risk for score in found] == list(risks)


def test_a_row_has_each_hospital_and_all_of_them_together() -> None:
    row = row_of(
        "head",
        {
            "mayo": [Score("year1", True, 0.9), Score("year1", False, 0.8)],
            "emory": [Score("year1", False, 0.95)],
        },
    )
    mayo, emory, both = (row.at(place, "year1") for place in ("mayo", "emory", ALL))
    assert mayo is not None and (mayo.auroc, mayo.num_exams, mayo.num_cancers) == (1.0, 2, 1)
    assert emory is not None and emory.auroc is None
    assert both is not None and (both.auroc, both.num_exams) == (0.5, 3)
    assert row.at("mayo", "year2") is None


def test_a_run_without_evaluation_is_said(tmp_path: Path) -> None:
    begin_small_run(tmp_path / "server")
    with pytest.raises(DataError, match="expected the scores of an evaluation at mayo"):
        last_scores(tmp_path, "mayo")


def test_the_summary_shows_a_hospitals_own_heads_beside_the_joint_ones() -> None:
    scores = {"mayo": [Score("year1", True, 0.9), Score("year1", False, 0.8)], "emory": [Score("year1", True, 0.5)]}
    names = ("teacher", "risk-mirai", "risk-mirai-mayo", "risk-mirai-emory")
    reasons = Reasons(
        num_exams=60,
        pointing=0.51,
        pointing_by_chance=0.12,
        pointing_of_encoder=0.33,
        num_reported=50,
        naming=0.75,
        naming_by_chance=0.25,
    )
    results = RiskResults(
        seed=1,
        sites=("mayo", "emory"),
        rows=tuple(row_of(name, scores) for name in names),
        explained_variance={"mayo": 0.9, "emory": 0.8},
        reasons=reasons,
        page="page.html",
        minutes={"Training": 1.0},
    )
    console = Console(record=True, width=120)
    print_summary(console, results, Path("results.json"))
    text = console.export_text()

    of_mayo = text.partition("mayo: AUROC")[2].partition("emory: AUROC")[0]
    assert "1/2" in of_mayo and "risk-mirai, mayo alone" in of_mayo and "emory alone" not in of_mayo
    assert "0.51" in text and "0.33" in text and "60 held-out masses" in text
