"""A figure of several sites from the figures of each, where no exam's score leaves a site: pure, of a few numbers.

Counts are added, and by histograms the pairs of an AUROC (``pooled.py``). Everything else is combined here by inverse
variance and called *stratified*: a mean over sites of what holds within each, not what one would find if their exams
lay in one place.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

_DEVIATIONS = NormalDist().inv_cdf(0.975)
_NO_WIDTH = 1e-9


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval; where none was told, both ends are the figure."""

    value: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        """Whether the interval has a width."""
        return self.high - self.low > _NO_WIDTH


@dataclass(frozen=True, slots=True)
class Stratified:
    """The mean of sites' figures by inverse variance, and how much more they differ than chance would let them."""

    estimate: Estimate
    sites: tuple[str, ...]
    q: float
    """Cochran's Q: of sites that differ by chance alone, about their number less 1."""
    i_squared: float
    """Share of the differences that is not chance, 0..1 (Higgins and Thompson 2002)."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a figure's error is nearly normal; ``into`` rises, and is finite between ``least`` and ``most`` alone."""

    into: Callable[[float], float]
    back: Callable[[float], float]
    least: float
    most: float

    def holds(self, estimate: Estimate) -> bool:
        """Whether figure and interval have a place on it."""
        return all(self.least < number < self.most for number in (estimate.value, estimate.low, estimate.high))


def _logistic(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


LOGIT = Scale(lambda share: math.log(share / (1 - share)), _logistic, 0.0, 1.0)
"""For shares: AUROC, C-index, sensitivity, Brier score."""
FISHER = Scale(math.atanh, math.tanh, -1.0, 1.0)
"""For correlations."""
LOG = Scale(math.log, math.exp, 0.0, math.inf)
"""For ratios: observed to expected."""


def told_estimate(numbers: Mapping[str, float], word: str, part: str) -> Estimate | None:
    """``<word>/<part>`` among a site's released numbers, with ``<word>_low`` and ``<word>_high``; None if not told."""
    value = numbers.get(f"{word}/{part}")
    if value is None:
        return None
    return Estimate(value, numbers.get(f"{word}_low/{part}", value), numbers.get(f"{word}_high/{part}", value))


def stratified(estimates: Mapping[str, Estimate], scale: Scale) -> Stratified | None:
    """The common-effect mean of sites' figures: weights 1 / variance on a scale, variances from the intervals.

    A 95 % interval is taken as 2 · 1.96 standard errors wide on the scale. Where a figure or an end lies at the border
    of the scale (a sensitivity of 1), all sites are combined as the figures stand, so that none is left out for being
    perfect.

    Returns:
        None for fewer than two sites, and where an interval has no width: its site's weight would be infinite.
    """
    if len(estimates) < 2 or not all(item.has_interval for item in estimates.values()):
        return None
    is_inside = all(scale.holds(item) for item in estimates.values())
    used = scale if is_inside else _AS_IT_STANDS
    places = [used.into(item.value) for item in estimates.values()]
    errors = [(used.into(item.high) - used.into(item.low)) / (2 * _DEVIATIONS) for item in estimates.values()]
    weights = [1 / error**2 for error in errors]
    mean = sum(weight * place for weight, place in zip(weights, places, strict=True)) / sum(weights)
    width = _DEVIATIONS / math.sqrt(sum(weights))
    q = sum(weight * (place - mean) ** 2 for weight, place in zip(weights, places, strict=True))
    ends = (used.back(mean - width), used.back(mean + width))
    if not is_inside:
        ends = (max(ends[0], scale.least), min(ends[1], scale.most))
    estimate = Estimate(used.back(mean), *ends)
    return Stratified(estimate, tuple(estimates), q, _i_squared(q, len(estimates)))


_AS_IT_STANDS = Scale(lambda value: value, lambda value: value, -math.inf, math.inf)


def _i_squared(q: float, num_sites: int) -> float:
    return max(0.0, (q - (num_sites - 1)) / q) if q > 0 else 0.0
