"""A whole report from a small committed run: what it says of sites that tell, suppress, and are not there."""

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mammofed_server import cli
from mammofed_server.combined import Estimate
from mammofed_server.report.facts import Cell, Facts
from mammofed_server.report.gathered import evaluated_turn, gather
from mammofed_server.report.page import write_report
from mammofed_server.run_state import EvaluationRecord, RunState
from mammofed_shared.checkpoint import Failure
from mammofed_shared.config.tasks import TASKS
from mammofed_shared.errors import StateError
from runs import begin_small_run

RISK: dict[str, Any] = {"task": {"name": "risk-mirai"}, "text_encoder": None, "encoder": "encoder"}


def figures(word: str, part: str, value: float, half: float) -> dict[str, float]:
    return {f"{word}/{part}": value, f"{word}_low/{part}": value - half, f"{word}_high/{part}": value + half}


def histograms(part: str, edge: int, num_positive: int, num_labelled: int) -> dict[str, float]:
    return {
        f"histogram_positive/{part}/{edge}": float(num_positive),
        f"histogram_negative/{part}/{edge}": float(num_labelled - num_positive),
    }


def counted(part: str, num_positive: int, num_labelled: int) -> dict[str, float]:
    return {f"num_positive/{part}": float(num_positive), f"num_labelled/{part}": float(num_labelled)}


CENTRAL = {
    "num_exams": 300.0,
    "duration_s": 12.5,
    **figures("auroc", "year1", 0.85, 0.04),
    **counted("year1", 40, 240),
    **figures("auroc", "year5", 0.8, 0.05),
    **counted("year5", 60, 200),
    **histograms("year5", 1500, 60, 200),
    **figures("observed", "year5", 0.3, 0.06),
    "expected/year5": 0.25,
    **figures("brier", "year5", 0.15, 0.02),
    **figures("sensitivity80", "year5", 0.6, 0.1),
    **figures("c_index", "outcome", 0.78, 0.04),
    **counted("outcome", 60, 240),
    **figures("pearson", "teacher/year5", 0.9, 0.03),
    "num_exams/teacher": 280.0,
    **figures("observed", "year5/q4", 0.1, 0.05),
    "expected/year5/q4": 0.12,
    **counted("year5/q4", 12, 80),
    **figures("observed", "year5/q10", 0.4, 0.1),
    "expected/year5/q10": 0.38,
    **counted("year5/q10", 48, 120),
    **figures("auroc", "year5/density-b", 0.82, 0.08),
    **counted("year5/density-b", 30, 100),
    "suppressed/year5/density-a": 1.0,
    **figures("auroc", "proxy", 0.7, 0.1),
    **counted("proxy", 25, 90),
}
MAYO = {
    "num_exams": 90.0,
    "suppressed/year1": 1.0,
    "suppressed/outcome": 1.0,
    **figures("auroc", "year5", 0.6, 0.09),
    **counted("year5", 15, 60),
    **histograms("year5", 1600, 15, 60),
    **figures("observed", "year5", 0.25, 0.1),
    "expected/year5": 0.25,
}


def evaluated(folder: Path, metrics: dict[str, dict[str, float]], **replaced: Any) -> RunState:
    run = begin_small_run(folder, **replaced)
    failures = (Failure(site="emory", task_id="test/r0000/v00000/emory/evaluate", code="NO_DATA"),)
    state = run.manifest(0).state.digest
    run.commit_evaluation(EvaluationRecord(turn=0, round=0, state=state, metrics=metrics, failures=failures))
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunState:
    folder = tmp_path_factory.mktemp("risk")
    sites = ["central", "mayo", "emory", "boston"]
    return evaluated(folder, {"central": CENTRAL, "mayo": MAYO}, sites=sites, **RISK)


@pytest.fixture(scope="module")
def facts(run: RunState) -> Facts:
    return gather(run, evaluated_turn(run, None))


@pytest.fixture(scope="module")
def output(facts: Facts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "report"
    write_report(facts, folder)
    return folder


def test_the_example_tells_what_sites_may_tell() -> None:
    allowed = TASKS["risk-mirai"].evaluate_metrics
    said = {re.sub(r"^(histogram_.*/)\d+$", r"\1#", name) for name in (*CENTRAL, *MAYO)}
    assert said <= allowed


def test_a_figure_stands_beside_its_exams_and_a_suppressed_one_is_called_so(facts: Facts) -> None:
    panels = {panel.title: panel for panel in facts.forests[0].panels}
    assert list(panels) == ["1 year", "5 years"], "of the other years no site tells or suppresses anything"
    central, mayo = panels["1 year"].cells
    assert central == Cell("central", "told", Estimate(0.85, pytest.approx(0.81), pytest.approx(0.89)), 240, 40)  # type: ignore[arg-type]
    assert mayo == Cell("mayo", "suppressed")
    assert panels["1 year"].together is None and panels["1 year"].bounds is None
    assert panels["1 year"].ranking == "Not enough cancers to rank sites: mayo suppresses the figure."


def test_over_sites_exams_are_added_and_the_auroc_is_bounded(facts: Facts) -> None:
    panel = facts.forests[0].panels[1]
    assert panel.together is not None and panel.together.sites == ("central", "mayo")
    assert (panel.num_labelled(("central", "mayo")), panel.num_positive(("central", "mayo"))) == (260, 75)
    assert panel.bounds is not None
    pairs, within = 75 * 185, 0.8 * 60 * 140 + 0.6 * 15 * 45
    assert panel.bounds.low == pytest.approx(within / pairs), "between the sites every pair is open"
    assert panel.bounds.high == pytest.approx((within + 60 * 45 + 15 * 140) / pairs)
    assert panel.ranking == "Not enough cancers to rank sites: mayo has 15 (fewer than 20)."


def test_observed_is_divided_by_expected(facts: Facts) -> None:
    forest = next(item for item in facts.forests if item.slug == "observed-to-expected")
    estimates = [cell.estimate for cell in forest.panels[-1].cells]
    assert estimates[0] is not None and estimates[1] is not None
    assert (estimates[0].value, estimates[0].low) == (pytest.approx(1.2), pytest.approx(0.96))
    assert estimates[1].value == pytest.approx(1.0)


def test_tenths_that_were_merged_are_named_by_what_they_hold(facts: Facts) -> None:
    (calibration,) = facts.calibrations
    assert [(item.name, item.num_positive) for item in calibration.sites["central"]] == [("1–4", 12), ("5–10", 48)]
    assert calibration.sites["mayo"] == ()


def test_each_kind_of_figure_has_a_place(facts: Facts) -> None:
    assert [item.slug for item in facts.forests] == [
        "auroc",
        "c-index",
        "sensitivity80",
        "observed-to-expected",
        "brier",
        "teacher",
        "auroc-by-density",
        "label",
    ]
    teacher, density = facts.forests[5].panels[0], facts.forests[6]
    assert (teacher.cells[0].num_labelled, teacher.cells[0].num_positive) == (280, None)
    assert [panel.title for panel in density.panels] == ["density A, 5 years", "density B, 5 years"]
    assert [panel.cells[0].standing for panel in density.panels] == ["suppressed", "told"]
    assert facts.others == (
        ("duration_s", (12.5, None)),
        ("num_exams", (300.0, 90.0)),
        ("num_exams/teacher", (280.0, None)),
    )


def test_sites_without_numbers_are_named(facts: Facts) -> None:
    assert facts.without == ("boston", "emory: NO_DATA")


def test_every_figure_is_a_picture_of_its_own_and_in_the_page_in_both_colours(facts: Facts, output: Path) -> None:
    slugs = [item.slug for item in (*facts.forests, *facts.calibrations)]
    assert sorted(path.name for path in output.iterdir()) == sorted(["report.html", *(f"{slug}.png" for slug in slugs)])
    page = (output / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2 * len(slugs)
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page), "it needs nothing beside it"
    for slug in slugs:
        with Image.open(output / f"{slug}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5, "something is drawn"


def test_the_page_says_in_words_what_its_pictures_show(output: Path) -> None:
    page = unescape((output / "report.html").read_text(encoding="utf-8"))
    alts = re.findall(r'alt="([^"]*)"', page)
    assert "1 year: central 0.85 (0.81 to 0.89); mayo suppressed." in alts[0]
    assert "stratified" in alts[0] and "pooled bounds" in alts[0]
    assert any("central: tenth 1–4 expected 0.12, observed 0.10" in alt for alt in alts)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    assert "1 year central 0.85 (0.81 to 0.89) 240 40" in text
    assert "mayo suppressed – –" in text
    assert "Without boston; emory: NO_DATA" in text
    assert "Not enough cancers to rank sites: mayo has 15 (fewer than 20)." in text


def test_equal_records_give_equal_bytes(facts: Facts, tmp_path: Path) -> None:
    few = replace(facts, forests=facts.forests[:1])
    for name in ("once", "again"):
        write_report(few, tmp_path / name)
    for path in (tmp_path / "once").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_one_site_alone_is_drawn_without_anything_over_sites(tmp_path: Path) -> None:
    run = evaluated(tmp_path, {"mayo": MAYO}, **RISK)
    facts = gather(run, evaluated_turn(run, 0))
    panel = next(item for item in facts.forests[0].panels if item.title == "5 years")
    assert (panel.together, panel.bounds) == (None, None)
    assert panel.ranking == "One site alone, mayo, told this: there is nothing to rank."


def test_where_everything_is_suppressed_the_page_says_so(tmp_path: Path) -> None:
    run = evaluated(tmp_path, {"mayo": {"num_exams": 20.0, "suppressed/year5": 1.0}}, **RISK)
    (forest,) = gather(run, evaluated_turn(run, 0)).forests
    assert [(panel.title, panel.cells) for panel in forest.panels] == [("5 years", (Cell("mayo", "suppressed"),))]
    page = write_report(gather(run, evaluated_turn(run, 0)), tmp_path / "out").read_text(encoding="utf-8")
    assert "<td>suppressed</td>" in page


def test_a_pretraining_run_is_drawn_by_finding(tmp_path: Path) -> None:
    told = {
        "num_exams": 50.0,
        "density_accuracy": 0.5,
        **figures("auroc", "mass", 0.8, 0.05),
        **counted("mass", 30, 50),
        **figures("probe_auroc", "mass", 0.9, 0.05),
        "suppressed/calcification": 1.0,
    }
    run = evaluated(tmp_path, {"central": told, "mayo": {"num_exams": 20.0, "auroc/mass": 0.5}})
    facts = gather(run, evaluated_turn(run, None))
    auroc, probe = facts.forests
    assert [panel.title for panel in auroc.panels] == ["mass", "calcification"]
    assert auroc.panels[1].cells == (Cell("central", "suppressed"), Cell("mayo", "nothing"))
    assert [panel.title for panel in probe.panels] == ["mass", "calcification"]
    assert probe.panels[0].cells[0].num_positive == 30
    page = write_report(facts, tmp_path / "out").read_text(encoding="utf-8")
    assert "Zero-shot AUROC by finding" in page and "density_accuracy" in page


def test_a_task_without_figures_has_a_table(tmp_path: Path) -> None:
    run = evaluated(tmp_path, {"mayo": {"num_exams": 20.0, "mlm_loss": 1.25}}, task={"name": "text"})
    page = write_report(gather(run, evaluated_turn(run, None)), tmp_path / "out").read_text(encoding="utf-8")
    assert "mlm_loss" in page and "1.25" in page and "data:image" not in page


def test_a_run_that_was_not_evaluated_is_refused_with_what_there_is(tmp_path: Path, run: RunState) -> None:
    with pytest.raises(StateError, match="no checkpoint of run 'test' was evaluated yet"):
        evaluated_turn(begin_small_run(tmp_path), None)
    with pytest.raises(StateError, match="turn 7 was not evaluated; there are evaluations of the turns 0"):
        evaluated_turn(run, 7)
    nobody = evaluated(tmp_path / "nobody", {}, **RISK)
    with pytest.raises(StateError, match="no site told a number of turn 0"):
        gather(nobody, evaluated_turn(nobody, None))


def test_a_folder_that_exists_is_kept_and_a_failed_report_leaves_none(
    facts: Facts, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    with pytest.raises(StateError, match="give --output a new folder"):
        write_report(facts, output)
    few = replace(facts, forests=facts.forests[1:2], calibrations=())
    monkeypatch.setattr("mammofed_server.report.page._page", lambda *_: 1 / 0)
    for place, may_replace in ((output, True), (tmp_path / "new", False)):
        with pytest.raises(ZeroDivisionError):
            write_report(few, place, replace=may_replace)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_the_command_writes_into_the_run_and_again(tmp_path: Path) -> None:
    run = evaluated(tmp_path / "run", {"mayo": {"num_exams": 20.0, "mlm_loss": 1.25}}, task={"name": "text"})
    config = tmp_path / "run.yaml"
    config.write_text(run.record.settings.model_dump_json(), encoding="utf-8")
    for _ in range(2):
        said = CliRunner().invoke(cli.app, ["report", "--config", str(config)])
        assert said.exit_code == 0, said.output
        assert "look at it" in said.output and (run.folder / "reports/00000/report.html").exists()
    said = CliRunner().invoke(cli.app, ["report", "--config", str(config), "--turn", "0", "-o", str(tmp_path / "out")])
    assert (tmp_path / "out/report.html").read_bytes() == (run.folder / "reports/00000/report.html").read_bytes()
