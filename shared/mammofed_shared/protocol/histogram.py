"""Histograms of scores as released numbers: ``histogram_positive/mass/1043`` is a bin that ends at edge 1043.

Scores are cosines. A fixed grid cuts [-1, 1] into ``NUM_CELLS`` cells of equal width, the same at every site; a bin is
a run of cells and begins where the one before it in its histogram ends, the first at edge 0. A bin of 0 is a gap
between two others. A site makes them by ``evaluation/histogram.py``; this check is made where they leave and again
where they arrive.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mammofed_shared.errors import RefusalCode, Refused

NUM_CELLS = 2000
"""Cells of 0.001: of 1,000 exams whose scores spread by 0.1 around their mean, a cell holds three."""
POSITIVE, NEGATIVE = "histogram_positive", "histogram_negative"
EDGES = frozenset(str(edge) for edge in range(1, NUM_CELLS + 1))
"""Every way in which a name may say an upper edge."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Exams of one class whose scores lie in the cells ``lower`` … ``upper`` - 1."""

    lower: int
    upper: int
    num: int


Histogram = tuple[Bin, ...]


def histogram_numbers(family: str, finding: str, bins: Histogram) -> dict[str, float]:
    """The numbers that say a histogram, the gaps between its bins among them."""
    numbers: dict[str, float] = {}
    end = 0
    for item in bins:
        if item.lower > end:
            numbers[f"{family}/{finding}/{item.lower}"] = 0.0
        numbers[f"{family}/{finding}/{item.upper}"] = float(item.num)
        end = item.upper
    return numbers


def histograms_in(metrics: Mapping[str, float]) -> dict[tuple[str, str], Histogram]:
    """The histograms among checked metrics, by family and finding; gaps are left out."""
    edges: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for name, value in metrics.items():
        if is_histogram(name):
            family, finding, edge = name.split("/")
            edges.setdefault((family, finding), []).append((int(edge), int(value)))
    return {key: _bins(sorted(found)) for key, found in edges.items()}


def _bins(edges: list[tuple[int, int]]) -> Histogram:
    lowers = [0, *(upper for upper, _ in edges)]
    return tuple(Bin(lower, upper, num) for lower, (upper, num) in zip(lowers, edges, strict=False) if num)


def is_histogram(name: str) -> bool:
    """Whether a metric is a bin of a histogram."""
    return name.startswith((f"{POSITIVE}/", f"{NEGATIVE}/"))


def check_histograms(metrics: Mapping[str, float]) -> None:
    """Refuse histograms that do not hold exactly the exams that the site counts.

    Args:
        metrics: names and values are those that an evaluation may tell.

    Raises:
        Refused: METRIC_NOT_ALLOWED.
    """
    found = histograms_in(metrics)
    for finding in {finding for _, finding in found}:
        num_labelled, num_positive = (metrics.get(f"num_{word}/{finding}") for word in ("labelled", "positive"))
        counted = {
            family: sum(item.num for item in found.get((family, finding), ())) for family in (POSITIVE, NEGATIVE)
        }
        told = None if num_labelled is None or num_positive is None else num_labelled - num_positive
        if (counted[POSITIVE], counted[NEGATIVE]) != (num_positive, told):
            raise Refused(
                RefusalCode.METRIC_NOT_ALLOWED, f"the histograms of {finding} do not hold the exams that are counted"
            )
