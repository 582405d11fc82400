"""Kaplan–Meier, Brier score and C-index: by hand, by definition one pair at a time, and where the truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mammofed_shared.evaluation.statistics import Values
from mammofed_shared.evaluation.survival import (
    FollowUp,
    brier,
    concordance,
    follow_up_of,
    followed_share,
    observed_risk,
)
from risk_exams import drawn_exams, make_exam, risks_of

YEARS = 5
FOLLOW_UPS = st.lists(st.tuples(st.integers(0, 7), st.booleans()), min_size=1, max_size=40)


def make_follow_up(items: list[tuple[int, bool]]) -> FollowUp:
    """From (year, is cancer) of each exam; a cancer of year 0 does not exist and becomes one of year 1."""
    years = [max(year, int(is_cancer)) for year, is_cancer in items]
    return FollowUp(np.array(years, np.int64), np.array([is_cancer for _, is_cancer in items], np.bool_))


def once(follow_up: FollowUp) -> Values:
    """Every exam once: a single sample."""
    return np.ones((1, len(follow_up.years)))


def test_a_cancer_after_k_full_years_is_of_year_k_plus_1_and_an_unknown_outcome_of_year_0() -> None:
    exams = [make_exam(0, to_cancer=0, followed=0), make_exam(1, to_cancer=3), make_exam(2, followed=4), make_exam(3)]
    found = follow_up_of(exams)
    assert found.years.tolist() == [1, 4, 4, 0]
    assert found.is_cancer.tolist() == [True, True, False, False]
    assert [found.cancers_by(year).tolist() for year in (1, 3, 4)] == [
        [True, False, False, False],
        [True, False, False, False],
        [True, True, False, False],
    ]
    assert found.known_by(4).tolist() == [True, True, True, False], "followed for four years: known by year 4 …"
    assert found.known_by(5).tolist() == [True, True, False, False], "… and not by year 5"


def test_kaplan_meier_is_that_of_a_table_made_by_hand() -> None:
    # Year 1: 1 of 6 at risk. Year 2: one lost after 1, so 1 of 4. Year 3: 1 of 2. Year 4: nobody.
    follow_up = make_follow_up([(1, True), (1, False), (2, True), (2, False), (3, True), (3, False)])
    found = observed_risk(once(follow_up), follow_up, 4)[0]
    assert found[:3] == pytest.approx([1 / 6, 1 - 5 / 6 * 3 / 4, 1 - 5 / 6 * 3 / 4 * 1 / 2])
    assert np.isnan(found[3])


def test_where_all_have_fallen_ill_the_risk_stays_one() -> None:
    follow_up = make_follow_up([(1, True), (2, True)])
    assert observed_risk(once(follow_up), follow_up, 4)[0].tolist() == [0.5, 1, 1, 1]


def test_the_end_of_follow_up_has_the_mirrored_curve_and_cancer_of_the_same_year_comes_first() -> None:
    follow_up = make_follow_up([(0, False), (1, True), (1, False), (2, False), (3, True)])
    # After year 0 one of five is lost; after year 1 one of three: the cancer of year 1 is at risk no more.
    assert followed_share(once(follow_up), follow_up, 3)[0] == pytest.approx([4 / 5, 4 / 5 * 2 / 3, 4 / 5 * 2 / 3 / 2])


@given(FOLLOW_UPS)
def test_without_losses_the_observed_risk_is_the_share_of_cancers(items: list[tuple[int, bool]]) -> None:
    follow_up = make_follow_up([(year if is_cancer else 9, is_cancer) for year, is_cancer in items])
    shares = [follow_up.cancers_by(year).mean() for year in range(1, YEARS + 1)]
    assert observed_risk(once(follow_up), follow_up, YEARS)[0] == pytest.approx(shares)


@given(FOLLOW_UPS, st.integers(1, YEARS))
def test_what_weighting_adds_up_to_is_what_kaplan_and_meier_found(items: list[tuple[int, bool]], year: int) -> None:
    """Two ways to the same number: the weights of the cancers seen make up for those that were lost."""
    follow_up = make_follow_up(items)
    share_T = followed_share(once(follow_up), follow_up, YEARS)[0]
    risk = observed_risk(once(follow_up), follow_up, YEARS)[0, year - 1]
    if np.isnan(risk):
        return
    weights = [1 / share_T[follow_up.years[place] - 1] for place in np.flatnonzero(follow_up.cancers_by(year))]
    assert sum(weights) / len(items) == pytest.approx(risk)


def plain_brier(follow_up: FollowUp, risk_N: Values, year: int) -> float:
    """Graf's definition, an exam at a time."""
    share_T = followed_share(once(follow_up), follow_up, YEARS)[0]
    total = 0.0
    for time, is_cancer, risk in zip(follow_up.years, follow_up.is_cancer, risk_N, strict=True):
        if is_cancer and time <= year:
            total += (1 - risk) ** 2 / share_T[time - 1]
        elif time >= year:
            total += risk**2 / share_T[year - 1]
    return total / len(risk_N)


def plain_concordance(follow_up: FollowUp, risk_NT: Values) -> float:
    """Uno's definition, a pair at a time."""
    share_T = followed_share(once(follow_up), follow_up, YEARS)[0]
    won = pairs = 0.0
    for one in range(len(risk_NT)):
        time = int(follow_up.years[one])
        if not follow_up.is_cancer[one] or time > YEARS:
            continue
        for other in range(len(risk_NT)):
            lasted = follow_up.years[other]
            if lasted > time or (lasted == time and not follow_up.is_cancer[other]):
                mine, theirs = risk_NT[one, time - 1], risk_NT[other, time - 1]
                weight = share_T[time - 1] ** -2
                won += weight * (1.0 if mine > theirs else 0.5 if mine == theirs else 0.0)
                pairs += weight
    return won / pairs if pairs else float("nan")


@given(FOLLOW_UPS, st.integers(0, 2**32 - 1))
def test_brier_score_and_c_index_are_those_of_their_definitions(items: list[tuple[int, bool]], seed: int) -> None:
    follow_up = make_follow_up(items)
    risk_NT = np.random.default_rng(seed).random((len(items), YEARS)).round(1)
    assert concordance(once(follow_up), follow_up, risk_NT)[0] == pytest.approx(
        plain_concordance(follow_up, risk_NT), nan_ok=True
    )
    for year in range(1, YEARS + 1):
        found = brier(once(follow_up), follow_up, risk_NT[:, year - 1], year)[0]
        if not np.isnan(found):
            assert found == pytest.approx(plain_brier(follow_up, risk_NT[:, year - 1], year))
            assert 0 <= found <= 1 + 1e-12


@given(FOLLOW_UPS, st.integers(0, 2**32 - 1))
def test_a_weight_is_how_often_an_exam_stands_there(items: list[tuple[int, bool]], seed: int) -> None:
    random = np.random.default_rng(seed)
    follow_up, risk_NT = make_follow_up(items), random.random((len(items), YEARS)).round(1)
    weight_N = random.integers(0, 4, len(items))
    weight_N[0] += 1
    repeated = np.repeat(np.arange(len(items)), weight_N)
    drawn = FollowUp(follow_up.years[repeated], follow_up.is_cancer[repeated])
    weight = weight_N[None].astype(np.float64)
    for weighted, plain in (
        (concordance(weight, follow_up, risk_NT), concordance(once(drawn), drawn, risk_NT[repeated])),
        (brier(weight, follow_up, risk_NT[:, 2], 3), brier(once(drawn), drawn, risk_NT[repeated, 2], 3)),
        (observed_risk(weight, follow_up, 4)[:, -1], observed_risk(once(drawn), drawn, 4)[:, -1]),
    ):
        assert weighted == pytest.approx(plain, nan_ok=True)


def test_who_is_lost_does_not_move_what_is_found() -> None:
    """The same patients, all followed for ten years and followed for a random time: both tell the same on average."""
    random = np.random.default_rng(3)
    rate_N = np.exp(random.normal(-2.0, 1.0, 20_000))
    to_cancer_N, followed_N = random.exponential(1 / rate_N), random.integers(1, 8, len(rate_N))
    whole = FollowUp(np.minimum(np.floor(to_cancer_N) + 1, 10).astype(np.int64), to_cancer_N < 10)
    is_lost_N = followed_N < whole.years
    lost = FollowUp(np.where(is_lost_N, followed_N, whole.years), whole.is_cancer & ~is_lost_N)
    assert is_lost_N.mean() > 0.4
    risk_NT = risks_of(rate_N)
    assert concordance(once(lost), lost, risk_NT)[0] == pytest.approx(
        concordance(once(whole), whole, risk_NT)[0], abs=0.01
    )
    assert brier(once(lost), lost, risk_NT[:, 4], 5)[0] == pytest.approx(
        brier(once(whole), whole, risk_NT[:, 4], 5)[0], abs=0.005
    )
    assert observed_risk(once(lost), lost, 5)[0] == pytest.approx(risk_NT.mean(axis=0), abs=0.01)
    assert abs(lost.cancers_by(5).mean() - risk_NT[:, 4].mean()) > 0.1, "a count alone would be far off"


def test_true_risks_rank_better_than_noisy_ones_and_a_c_index_of_noise_is_a_half() -> None:
    exams, risk_NT = drawn_exams(1000)
    follow_up, random = follow_up_of(exams), np.random.default_rng(1)
    truth = concordance(once(follow_up), follow_up, risk_NT)[0]
    noise = concordance(once(follow_up), follow_up, random.random(risk_NT.shape))[0]
    assert truth > 0.7 and noise == pytest.approx(0.5, abs=0.05)
    assert concordance(once(follow_up), follow_up, 1 - risk_NT)[0] == pytest.approx(1 - truth)
