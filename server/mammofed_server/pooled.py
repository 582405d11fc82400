"""The AUROC over the exams of all sites together, from numbers that hold no exam's score: pure, of a few thousand bins.

A pair is an exam with the finding and an exam without it; the AUROC is the share of pairs in which the former scores
higher, a tie being half. Within one site the share is known: the site's own AUROC. Between two sites a pair is won or
lost for certain where the two bins do not overlap, whatever bins each site has; else it is open. The lower bound takes
every open pair as lost, the upper one as won.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from mammofed_shared.protocol.histogram import NEGATIVE, POSITIVE, Bin, Histogram, histograms_in, is_histogram


@dataclass(frozen=True, slots=True)
class PooledAuroc:
    """Bounds between which the AUROC over all exams lies for certain; not a confidence interval."""

    low: float
    high: float
    sites: tuple[str, ...]
    """Sites that told of this finding; exams of no other are in it."""

    @property
    def middle(self) -> float:
        """The midpoint of the bounds."""
        return (self.low + self.high) / 2


@dataclass(frozen=True, slots=True)
class _Told:
    """What one site told of a finding."""

    site: str
    positive: Histogram
    negative: Histogram
    auroc: float | None


def pooled_aurocs(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, PooledAuroc]:
    """Finding → pooled AUROC over the sites that told of it.

    Args:
        metrics: site → released numbers of the evaluation of one state.
    """
    by_finding: dict[str, list[_Told]] = {}
    for site, numbers in metrics.items():
        found = histograms_in(numbers)
        for family, finding in found:
            if family == POSITIVE and (NEGATIVE, finding) in found:
                told = _Told(site, found[POSITIVE, finding], found[NEGATIVE, finding], numbers.get(f"auroc/{finding}"))
                by_finding.setdefault(finding, []).append(told)
    return {finding: _pooled(told) for finding, told in sorted(by_finding.items())}


def without_histograms(metrics: Mapping[str, float]) -> dict[str, float]:
    """The numbers that a person reads."""
    return {name: value for name, value in metrics.items() if not is_histogram(name)}


def _pooled(told: Sequence[_Told]) -> PooledAuroc:
    won = open_pairs = pairs = 0.0
    for one in told:
        for other in told:
            here = sum(item.num for item in one.positive) * sum(item.num for item in other.negative)
            pairs += here
            if one is other and one.auroc is not None:
                won += one.auroc * here
            else:
                for_certain, undecided = _compared(one.positive, other.negative)
                won += for_certain
                open_pairs += undecided
    return PooledAuroc(won / pairs, (won + open_pairs) / pairs, tuple(item.site for item in told))


def _compared(positive: Histogram, negative: Sequence[Bin]) -> tuple[int, int]:
    """Numbers of pairs that are won for certain, and that are open.

    Bins of a histogram follow each other, so those wholly below a value are its first ones.
    """
    uppers = [item.upper for item in negative]
    lowers = [item.lower for item in negative]
    below = [0, *accumulate(item.num for item in negative)]
    won = undecided = 0
    for item in positive:
        certain = below[bisect_right(uppers, item.lower)]
        possible = below[bisect_left(lowers, item.upper)]
        won += item.num * certain
        undecided += item.num * (possible - certain)
    return won, undecided
