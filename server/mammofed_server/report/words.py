"""Figures as words: what stands beside a mark, in a table, and in place of a picture for those who do not see it."""

from mammofed_server.combined import Estimate
from mammofed_server.report.facts import Calibration, Cell, Forest, Panel, Tenth

STRATIFIED, POOLED = "stratified", "pooled bounds"
NOT_TOLD = {"suppressed": "suppressed", "nothing": "nothing to tell"}


def figure(value: float) -> str:
    """A figure with as many digits as say something: 0.84, 0.077, 0.0012."""
    digits = 2 if abs(value) >= 0.1 or value == 0 else 3 if abs(value) >= 0.01 else 4
    return f"{value:.{digits}f}"


def interval(estimate: Estimate) -> str:
    """`0.84 (0.76 to 0.90)`; the figure alone where it has no interval."""
    if not estimate.has_interval:
        return figure(estimate.value)
    return f"{figure(estimate.value)} ({figure(estimate.low)} to {figure(estimate.high)})"


def counts(num_positive: int | None, num_labelled: int | None) -> str:
    """`29 of 210`, as far as it is known."""
    if num_labelled is None:
        return ""
    return f"{num_labelled}" if num_positive is None else f"{num_positive} of {num_labelled}"


def cell_words(cell: Cell) -> str:
    """A site's figure, or why there is none."""
    return interval(cell.estimate) if cell.estimate is not None else NOT_TOLD[cell.standing]


def forest_alt(forest: Forest) -> str:
    """What the figure shows, panel by panel."""
    return f"{forest.heading}, 95 % intervals. " + " ".join(_panel_alt(item) for item in forest.panels)


def _panel_alt(panel: Panel) -> str:
    said = [f"{cell.site} {cell_words(cell)}" for cell in panel.cells]
    if panel.together is not None:
        said.append(f"{STRATIFIED} {interval(panel.together.estimate)}")
    if panel.bounds is not None:
        said.append(f"{POOLED} {figure(panel.bounds.low)} to {figure(panel.bounds.high)}")
    return f"{panel.title}: {'; '.join(said)}."


def calibration_alt(calibration: Calibration) -> str:
    """Observed and expected risk, site by site."""
    sites = [f"{site}: {_tenths_alt(tenths)}." for site, tenths in calibration.sites.items()]
    return f"{calibration.heading}, expected and observed risk in tenths. {' '.join(sites)}"


def _tenths_alt(tenths: tuple[Tenth, ...]) -> str:
    if not tenths:
        return "nothing told"
    return "; ".join(
        f"tenth {item.name} expected {figure(item.expected)}, observed {figure(item.observed.value)}" for item in tenths
    )
