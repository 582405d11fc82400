"""Two runs compared on the exams that both have scored, at the site."""

from pathlib import Path

import pytest
from rich.console import Console

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import ConfigurationError, DataError
from mammofed_site.compare import compare_runs, comparisons
from prepared import prepare_dataset, site_settings

NUM_EXAMS = 40


@pytest.fixture
def settings(tmp_path: Path) -> SiteSettings:
    settings = site_settings(tmp_path, "mayo", seed=7)
    prepare_dataset(tmp_path / "datasets/screening", 7, num_training=0, num_test=NUM_EXAMS)
    return settings


def _write(settings: SiteSettings, run: str, turn: int, rows: list[str]) -> None:
    folder = settings.folder / "visits" / f"{run}_r0001_v{turn:05d}_mayo_evaluate" / "result"
    folder.mkdir(parents=True)
    (folder / "scores.csv").write_text("\n".join(["exam,dataset,finding,label,score", *rows]) + "\n")


def _rows(sharpness: float, finding: str = "year1", unknown: int = 0) -> list[str]:
    """Every second exam is positive; with sharpness 1 all positives are above all negatives, with 0 the order is
    another one."""
    found = []
    for number in range(NUM_EXAMS):
        label = number % 2
        score = sharpness * label + (number * 7 % NUM_EXAMS) / (2 * NUM_EXAMS)
        told = "" if number < unknown else str(label)
        found.append(f"e007{number:04d},screening,{finding},{told},{score}")
    return found


def test_the_better_model_is_told_from_chance(settings: SiteSettings) -> None:
    _write(settings, "sharp", 1, _rows(0.0))
    _write(settings, "sharp", 2, _rows(1.0, unknown=4) + _rows(0.0, "year2"))
    _write(settings, "blunt", 2, _rows(0.0))
    (found,) = comparisons(settings, "sharp", "blunt")

    assert (found.finding, found.num_exams, found.num_positive) == ("year1", NUM_EXAMS - 4, NUM_EXAMS // 2 - 2)
    assert found.first == 1.0 and found.second is not None and 0.4 < found.second < 0.6
    assert found.test is not None and found.test.difference == found.first - found.second
    assert found.test.p_value < 0.01


def test_a_model_does_not_differ_from_itself(settings: SiteSettings) -> None:
    for run in ("one", "same"):
        _write(settings, run, 1, _rows(0.2))
    console = Console(record=True, width=120)
    compare_runs(settings, "one", "same", console)

    assert "+0.000" in console.export_text(clear=False) and "1.000" in console.export_text()


def test_scores_of_a_simulation_are_named_by_their_file(settings: SiteSettings) -> None:
    _write(settings, "one", 1, _rows(1.0))
    _write(settings, "other", 1, _rows(0.0))
    (path,) = (settings.folder / "visits").glob("other_*/result/scores.csv")

    assert comparisons(settings, "one", str(path)) == comparisons(settings, "one", "other")
    with pytest.raises(DataError, match=r"missing\.csv: expected the scores"):
        comparisons(settings, "one", "missing.csv")


def test_a_run_that_was_not_evaluated_here_is_named(settings: SiteSettings) -> None:
    _write(settings, "one", 1, _rows(0.2))
    with pytest.raises(ConfigurationError, match="no run called 'other' was evaluated at mayo"):
        comparisons(settings, "one", "other")


def test_runs_of_different_tasks_have_nothing_in_common(settings: SiteSettings) -> None:
    _write(settings, "one", 1, _rows(0.2))
    _write(settings, "other", 1, _rows(0.2, "mass"))
    with pytest.raises(DataError, match="nothing in common"):
        comparisons(settings, "one", "other")
