"""What a report says, as plain records: every word and number of it, before anything is drawn."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mammofed_server.combined import LOGIT, Estimate, Scale, Stratified, stratified, told_estimate
from mammofed_server.pooled import PooledAuroc
from mammofed_server.report.ranking import ranking

Standing = Literal["told", "suppressed", "nothing"]
"""Of a site's figure: told; suppressed at the site, since it would tell of too few patients; or nothing to tell."""

Numbers = Mapping[str, float]
Metrics = Mapping[str, Numbers]
"""Site → released number → value."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One site's figure, and the exams and positives behind it where they are told."""

    site: str
    standing: Standing
    estimate: Estimate | None = None
    num_labelled: int | None = None
    num_positive: int | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure at every site, and over them."""

    title: str
    cells: tuple[Cell, ...]
    together: Stratified | None
    bounds: PooledAuroc | None = None
    ranking: str | None = None
    """Which sites are apart, or why they cannot be ranked."""

    def num_labelled(self, sites: Sequence[str]) -> int | None:
        """Exams behind the figures of these sites together; None where one did not tell."""
        return _sum(cell.num_labelled for cell in self.cells if cell.site in sites)

    def num_positive(self, sites: Sequence[str]) -> int | None:
        """Positives among them."""
        return _sum(cell.num_positive for cell in self.cells if cell.site in sites)


@dataclass(frozen=True, slots=True)
class Forest:
    """Panels of one kind, drawn beside each other: a row a site, a mark and a bar each."""

    slug: str
    heading: str
    sentence: str
    axis: str
    panels: tuple[Panel, ...]
    positives: str = "cancers"
    reference: float | None = None
    """Where a model would be that knows nothing, or that is right."""

    @property
    def is_told(self) -> bool:
        """Whether a site tells any of it."""
        return any(cell.standing == "told" for panel in self.panels for cell in panel.cells)


@dataclass(frozen=True, slots=True)
class Tenth:
    """Observed and expected risk of exams in neighbouring tenths."""

    name: str
    expected: float
    observed: Estimate
    num_labelled: int | None
    num_positive: int | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Observed beside expected risk at every site; no tenths: not told."""

    slug: str
    heading: str
    sentence: str
    sites: Mapping[str, tuple[Tenth, ...]]


@dataclass(frozen=True, slots=True)
class Facts:
    """A whole report."""

    run: str
    task: str
    turn: int
    round: int
    state: str
    code: str
    num_exams: Mapping[str, int | None]
    """Of each site that told numbers."""
    without: tuple[str, ...]
    """Sites that told none, and why."""
    forests: tuple[Forest, ...]
    calibrations: tuple[Calibration, ...]
    others: tuple[tuple[str, tuple[float | None, ...]], ...]
    """Numbers that no figure shows: name, value of each site."""


def panel(
    metrics: Metrics,
    title: str,
    word: str,
    part: str,
    scale: Scale = LOGIT,
    *,
    counted: str | None = None,
    bounds: PooledAuroc | None = None,
    ranked: str | None = None,
) -> Panel:
    """The figure ``<word>/<part>`` of every site.

    Args:
        counted: the part whose ``num_labelled`` and ``num_positive`` stand behind it, where it is another.
        bounds: those of the AUROC over all exams; of one site they say nothing new.
        ranked: what the positives are called, where sites are to be ranked by the figure.
    """
    estimates = {site: told_estimate(numbers, word, part) for site, numbers in metrics.items()}
    found = panel_of(metrics, title, estimates, part, scale, counted)
    several = bounds if bounds is not None and len(bounds.sites) > 1 else None
    return replace(found, bounds=several, ranking=_ranking(found.cells, ranked) if ranked else None)


def panel_of(
    metrics: Metrics,
    title: str,
    estimates: Mapping[str, Estimate | None],
    part: str,
    scale: Scale,
    counted: str | None = None,
) -> Panel:
    """The same of figures that are made of released numbers."""
    cells = tuple(
        _cell(site, numbers, estimates[site], part, counted or part) for site, numbers in sorted(metrics.items())
    )
    told = {cell.site: cell.estimate for cell in cells if cell.estimate is not None}
    return Panel(title, cells, stratified(told, scale))


def shown(panels: Iterable[Panel]) -> tuple[Panel, ...]:
    """Those that a site told or had to suppress."""
    return tuple(item for item in panels if any(cell.standing != "nothing" for cell in item.cells))


def is_suppressed(numbers: Numbers, part: str) -> bool:
    """Whether a site says that too few patients stand behind a part, or behind a whole that it is of."""
    words = part.split("/")
    return any(f"suppressed/{'/'.join(words[:end])}" in numbers for end in range(1, len(words) + 1))


def count(numbers: Numbers, name: str) -> int | None:
    """A released count."""
    return int(numbers[name]) if name in numbers else None


def _cell(site: str, numbers: Numbers, estimate: Estimate | None, part: str, counted: str) -> Cell:
    if estimate is None:
        return Cell(site, "suppressed" if is_suppressed(numbers, part) else "nothing")
    num_labelled = count(numbers, f"num_labelled/{counted}")
    if num_labelled is None:  # of the teacher's risks there are exams, and no label
        num_labelled = count(numbers, f"num_exams/{counted}")
    return Cell(site, "told", estimate, num_labelled, count(numbers, f"num_positive/{counted}"))


def _ranking(cells: Sequence[Cell], positives: str) -> str | None:
    told = {cell.site: cell.estimate for cell in cells if cell.estimate is not None}
    num_positive = {cell.site: cell.num_positive for cell in cells if cell.estimate is not None}
    return ranking(told, num_positive, [cell.site for cell in cells if cell.standing == "suppressed"], positives)


def _sum(numbers: Iterable[int | None]) -> int | None:
    found = list(numbers)
    return None if None in found else sum(number for number in found if number is not None)
