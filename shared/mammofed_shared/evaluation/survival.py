"""Cancers over the years when not everybody is followed for all of them: Kaplan–Meier, Brier score and C-index.

Time is counted in years. An exam's year is that in which cancer was found, 1 for the first, or the last full year after
which the patient is known to have none. Cancer found in a year comes before the end of follow-up with that year, so a
patient who was followed for t full years was at risk in year t.

Shapes: N exams, R samples (rows of weights, one each for the samples of a bootstrap), T years 1 … T.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.evaluation.statistics import Values, compared, divided, ranking
from mammofed_shared.exam import Exam

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FollowUp:
    """When cancer was found in whom, or until when in whom not; both (N,); ``years`` is 0 where nothing is known."""

    years: NDArray[np.int64]
    is_cancer: Mask

    def cancers_by(self, year: int) -> Mask:
        """Exams after which cancer was found within so many years."""
        return self.is_cancer & (self.years <= year)

    def known_by(self, year: int) -> Mask:
        """Exams of which it is known whether it was."""
        return self.is_cancer | (self.years >= year)

    def of(self, chosen: Mask) -> "FollowUp":
        """That of some exams."""
        return FollowUp(self.years[chosen], self.is_cancer[chosen])


def follow_up_of(exams: Sequence[Exam]) -> FollowUp:
    """What is known of each exam; ``years_to_cancer`` of k full years are a cancer in year k + 1."""
    years = [
        exam.years_to_cancer + 1 if exam.years_to_cancer is not None else exam.years_followed or 0 for exam in exams
    ]
    is_cancer = [exam.years_to_cancer is not None for exam in exams]
    return FollowUp(np.array(years, np.int64), np.array(is_cancer, np.bool_))


def observed_risk(weight_RN: Values, follow_up: FollowUp, num_years: int) -> Values:
    """Share of patients in whom cancer was found within 1 … T years, by Kaplan and Meier (1958), (R, T).

    NaN from the first year in which nobody was at risk any more, unless all had been found by then.
    """
    risk_RT = np.empty((len(weight_RN), num_years))
    free_R = np.ones(len(weight_RN))
    for year in range(1, num_years + 1):
        found_R = weight_RN @ (follow_up.is_cancer & (follow_up.years == year))
        at_risk_R = weight_RN @ (follow_up.years >= year)
        free_R = np.where(free_R == 0, 0.0, free_R * (1 - divided(found_R, at_risk_R)))
        risk_RT[:, year - 1] = 1 - free_R
    return risk_RT


def followed_share(weight_RN: Values, follow_up: FollowUp, num_years: int) -> Values:
    """Probability of being followed for 1 … T years at least, by Kaplan–Meier on the ends of follow-up, (R, T).

    This is what inverse probability of censoring weighting divides by: an exam with cancer in year t, or without until
    then, stands for all those of its kind that were lost before.
    """
    share_RT = np.empty((len(weight_RN), num_years))
    share_R = np.ones(len(weight_RN))
    for year in range(num_years):
        lost_N = ~follow_up.is_cancer & (follow_up.years == year)
        lost_R, at_risk_R = weight_RN @ lost_N, weight_RN @ ((follow_up.years > year) | lost_N)
        share_R = share_R * (1 - np.nan_to_num(divided(lost_R, at_risk_R)))
        share_RT[:, year] = share_R
    return share_RT


def brier(weight_RN: Values, follow_up: FollowUp, risk_N: Values, year: int) -> Values:
    """Mean squared difference of risk and outcome after so many years, (R,), 0 for a prophet.

    Weighted by the inverse probability of censoring (Graf et al. 1999); NaN where nobody was followed that long.

    Args:
        risk_N: of cancer within ``year`` years, 0..1.
    """
    share_RT = followed_share(weight_RN, follow_up, year)
    free_N = ~follow_up.cancers_by(year) & follow_up.known_by(year)
    sum_R = divided(weight_RN @ (free_N * risk_N**2), share_RT[:, -1])
    for found in range(1, year + 1):
        error_N = (follow_up.is_cancer & (follow_up.years == found)) * (1 - risk_N) ** 2
        sum_R = sum_R + np.nan_to_num(divided(weight_RN @ error_N, share_RT[:, found - 1]))
    return divided(sum_R, weight_RN.sum(axis=1))


def concordance(weight_RN: Values, follow_up: FollowUp, risk_NT: Values) -> Values:
    """C-index: how often of two patients the one with the earlier cancer had the higher risk, (R,).

    Of Uno et al. (2011): pairs are weighed by the inverse square of the probability of being followed so long, so it
    does not depend on who was lost when, and cancers after year T do not count. Two risks are compared in the year of
    the earlier cancer, since their order may change over the years (Antolini et al. 2005). Equal risks count half. NaN
    without a pair.

    Args:
        risk_NT: of cancer within 1 … T years.
    """
    num_years = risk_NT.shape[1]
    share_RT = followed_share(weight_RN, follow_up, num_years)
    won_R, pairs_R = np.zeros(len(weight_RN)), np.zeros(len(weight_RN))
    for year in range(1, num_years + 1):
        order, starts = ranking(risk_NT[:, year - 1])
        found_N = follow_up.is_cancer & (follow_up.years == year)
        later_N = (follow_up.years >= year) & ~found_N
        weight = weight_RN[:, order]
        won, pairs = compared(weight * found_N[order], weight * later_N[order], starts)
        inverse_R = np.nan_to_num(divided(np.ones(len(weight_RN)), share_RT[:, year - 1] ** 2))
        won_R += inverse_R * won
        pairs_R += inverse_R * pairs
    return divided(won_R, pairs_R)
