"""The numbers of the demo: spread over seeds, and the bar."""

import pytest

from demo_results import some_results
from mammofed_simulation.demo.results import ALL, Check, Results, check_bar, range_text, spread, spread_text


def test_spread_is_mean_lowest_and_highest() -> None:
    mean, low, high = spread([0.9, 0.96, 0.93]) or (0.0, 0.0, 0.0)
    assert (round(mean, 6), low, high) == (0.93, 0.9, 0.96)


@pytest.mark.parametrize("values", [[], [None], [0.9, None]])
def test_a_missing_auroc_leaves_no_spread(values: list[float | None]) -> None:
    assert spread(values) is None


def test_spread_is_told_as_a_range_only_where_there_are_several_values() -> None:
    assert spread_text((0.981, 0.975, 0.987)) == "0.981 (0.975–0.987)"
    assert spread_text((0.981, 0.981, 0.981)) == "0.981"
    assert spread_text(None) == "–"


def test_terminal_has_the_range_alone() -> None:
    assert range_text((0.981, 0.974, 0.987)) == "0.97–0.99"
    assert range_text((0.981, 0.979, 0.983)) == "0.98"
    assert range_text(None) == "–"


def test_bar_asks_for_the_figures_of_the_joint_model_and_of_fedavg() -> None:
    results = some_results()
    found = {
        check.what: (check.wanted, check.found)
        for check in check_bar(results.points, results.entry("fedavg"), results.sites)
    }
    assert found["joint model, mass AUROC, all hospitals"] == (0.90, 0.95)
    assert found["joint model, mass AUROC at emory"] == (0.85, 0.91)
    wanted, gain = found["joint model, mass AUROC above the untrained model"]
    assert wanted == 0.25
    assert gain == pytest.approx(0.95 - 0.55)
    assert found["FedAvg, mass AUROC, all hospitals"] == (0.90, 0.93)
    assert len(found) == 6


def test_bar_is_met_when_every_check_is_and_missed_with_one_that_is_not() -> None:
    results = some_results()
    assert results.is_bar_met
    last = results.points[-1]
    lower = last.model_copy(update={"auroc": {**last.auroc, "mass": {**last.auroc["mass"], "mayo": 0.849}}})
    checks = check_bar((*results.points[:-1], lower), results.entry("fedavg"), results.sites)
    assert [check.what for check in checks if not check.is_met] == ["joint model, mass AUROC at mayo"]
    assert not results.model_copy(update={"checks": checks}).is_bar_met


def test_auroc_that_does_not_exist_misses_the_bar() -> None:
    assert not Check(what="x", wanted=0.9, found=None).is_met
    assert Check(what="x", wanted=0.9, found=0.9).is_met


def test_results_survive_their_json() -> None:
    results = some_results()
    again = Results.model_validate_json(results.model_dump_json())
    assert again == results
    assert again.entry("joint").spread("mass", ALL) == pytest.approx((0.94, 0.93, 0.95))
