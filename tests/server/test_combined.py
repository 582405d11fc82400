"""Sites' figures combined by inverse variance: equal to what one works out by hand."""

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammofed_server.combined import FISHER, LOG, LOGIT, Estimate, Scale, stratified, told_estimate

Z = NormalDist().inv_cdf(0.975)


def around(place: float, error: float, scale: Scale) -> Estimate:
    """A figure that lies at a place of a scale, with the interval of a standard error there."""
    low, high = place - Z * error, place + Z * error
    return Estimate(scale.back(place), scale.back(low), scale.back(high))


def brute(places: list[float], errors: list[float]) -> tuple[float, float, float]:
    """Mean, standard error and Q, as they stand in a textbook (Borenstein et al., chapter 11)."""
    weights = [1 / (error * error) for error in errors]
    mean = sum(w * y for w, y in zip(weights, places, strict=True)) / sum(weights)
    q = sum(w * y * y for w, y in zip(weights, places, strict=True))
    q -= sum(w * y for w, y in zip(weights, places, strict=True)) ** 2 / sum(weights)
    return mean, math.sqrt(1 / sum(weights)), q


@pytest.mark.parametrize("scale", [LOGIT, FISHER, LOG], ids=["logit", "fisher", "log"])
@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(0.05, 0.8)), min_size=2, max_size=6))
def test_sites_are_combined_as_a_textbook_does(scale: Scale, drawn: list[tuple[float, float]]) -> None:
    places, errors = [place for place, _ in drawn], [error for _, error in drawn]
    sites = {f"site{number}": around(*item, scale) for number, item in enumerate(drawn)}

    found = stratified(sites, scale)

    assert found is not None and found.sites == tuple(sites)
    mean, error, q = brute(places, errors)
    assert scale.into(found.estimate.value) == pytest.approx(mean, abs=1e-8)
    assert scale.into(found.estimate.low) == pytest.approx(mean - Z * error, abs=1e-8)
    assert scale.into(found.estimate.high) == pytest.approx(mean + Z * error, abs=1e-8)
    assert found.q == pytest.approx(q, abs=1e-6)
    assert found.i_squared == pytest.approx(max(0.0, 1 - (len(sites) - 1) / q) if q > 1e-9 else 0.0, abs=1e-4)


def test_two_equal_sites_say_the_same_with_an_interval_that_is_narrower_by_the_root_of_two() -> None:
    one = around(1.0, 0.4, LOGIT)
    found = stratified({"central": one, "mayo": one}, LOGIT)
    assert found is not None and found.i_squared == 0
    assert found.estimate.value == pytest.approx(one.value)
    assert LOGIT.into(found.estimate.high) - 1 == pytest.approx(Z * 0.4 / math.sqrt(2))


def test_a_perfect_site_is_not_left_out() -> None:
    """0.5 ± 0.1 and 1 − 0.2 weigh 4 and 1 where both are taken as they stand: 0.6 ± 0.0894."""
    sites = {"central": Estimate(0.5, 0.4, 0.6), "mayo": Estimate(1.0, 0.6, 1.0)}
    found = stratified(sites, LOGIT)
    assert found is not None
    assert found.estimate.value == pytest.approx(0.6)
    assert found.estimate.low == pytest.approx(0.6 - 0.1 * math.sqrt(0.8))
    high = stratified({"central": Estimate(0.99, 0.9, 1.0), "mayo": Estimate(0.99, 0.9, 1.0)}, LOGIT)
    assert high is not None and high.estimate.high == 1.0, "a share ends at 1"


def test_one_site_and_an_interval_without_width_are_not_combined() -> None:
    told = Estimate(0.8, 0.7, 0.9)
    assert stratified({"central": told}, LOGIT) is None
    assert stratified({"central": told, "mayo": Estimate(0.9, 0.9, 0.9)}, LOGIT) is None


def test_a_figure_is_read_with_its_interval_or_alone() -> None:
    numbers = {"auroc/year5": 0.8, "auroc_low/year5": 0.7, "auroc_high/year5": 0.9, "auroc/mass": 0.75}
    assert told_estimate(numbers, "auroc", "year5") == Estimate(0.8, 0.7, 0.9)
    assert told_estimate(numbers, "auroc", "mass") == Estimate(0.75, 0.75, 0.75)
    assert told_estimate(numbers, "auroc", "year1") is None
