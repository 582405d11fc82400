"""Sites are ranked where that says something, and nowhere else."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammofed_server.combined import Estimate
from mammofed_server.report.ranking import FEWEST_POSITIVES, are_apart, ranking

HIGH, LOW, WIDE = Estimate(0.85, 0.8, 0.9), Estimate(0.6, 0.55, 0.65), Estimate(0.7, 0.5, 0.88)


def test_sites_whose_intervals_lie_apart_are_ranked() -> None:
    told = {"central": LOW, "emory": WIDE, "mayo": HIGH}
    counted = dict.fromkeys(told, 20)
    assert ranking(told, counted, [], "cancers") == "mayo is above central; other intervals overlap."
    assert ranking({"central": LOW, "mayo": HIGH}, {"central": 20, "mayo": 20}, [], "cancers") == (
        "mayo is above central."
    )


@pytest.mark.parametrize(
    ("num_positive", "hidden", "why"),
    [
        pytest.param({"central": 19, "mayo": 80}, [], "central has 19 (fewer than 20)", id="few"),
        pytest.param({"central": 80, "mayo": 80}, ["emory"], "emory suppresses the figure", id="suppressed"),
        pytest.param({"central": None, "mayo": 80}, [], "central has an unknown number (fewer than 20)", id="not told"),
    ],
)
def test_no_site_is_ranked_where_one_has_not_enough_cancers(
    num_positive: dict[str, int | None], hidden: list[str], why: str
) -> None:
    said = ranking({"central": LOW, "mayo": HIGH}, num_positive, hidden, "cancers")
    assert said == f"Not enough cancers to rank sites: {why}."


def test_no_site_is_ranked_where_all_intervals_overlap() -> None:
    told = {"central": WIDE, "mayo": HIGH}
    said = ranking(told, dict.fromkeys(told, 500), [], "cancers")
    assert said == "Not enough cancers to rank sites: all 95 % intervals overlap."


def test_one_site_alone_and_no_site_at_all_are_not_ranked() -> None:
    assert ranking({"mayo": HIGH}, {"mayo": 500}, [], "cancers") == (
        "One site alone, mayo, told this: there is nothing to rank."
    )
    assert ranking({}, {}, ["mayo"], "cancers") is None


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted), min_size=2, max_size=5))
def test_a_ranking_names_exactly_the_pairs_that_share_no_point(ends: list[list[float]]) -> None:
    told = {f"s{number}": Estimate(low, low, high) for number, (low, high) in enumerate(ends)}
    said = ranking(told, dict.fromkeys(told, FEWEST_POSITIVES), [], "cancers") or ""
    for (better, upper), (worse, lower) in product(told.items(), repeat=2):
        shares_no_point = upper.low > lower.high
        assert (f"{better} is above {worse}" in said) == shares_no_point
        assert are_apart(upper, lower) == (shares_no_point or lower.low > upper.high)
