"""Facts as PNG: forests and calibrations. The one file of the report that loads matplotlib.

Figures are made without pyplot, so nothing of them is global; equal facts give equal pixels.
"""

import math
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mammofed_server.combined import Estimate
from mammofed_server.report.facts import Calibration, Cell, Forest, Panel, Tenth
from mammofed_server.report.theme import Theme
from mammofed_server.report.words import NOT_TOLD, POOLED, STRATIFIED, counts, figure

PIXELS = 1.44
"""Of a picture to one of the page, so that letters are sharp and of one size in all figures."""
_WIDTH_IN, _DPI = 11.0, round(100 * PIXELS)
_ROW_IN, _HEAD_IN = 0.46, 0.75
_PANELS_A_ROW = 5
_SMALL, _NORMAL = 7.5, 9.0
_NO_LINE = "none"


def forest_png(forest: Forest, theme: Theme) -> bytes:
    """Each panel has a row for every site, then one for their stratified mean, one for the pooled AUROC.

    Above each mark: the figure, and positives of exams.
    """
    has_together = any(item.together is not None for item in forest.panels)
    has_bounds = any(item.bounds is not None for item in forest.panels)
    rows = [cell.site for cell in forest.panels[0].cells]
    rows += [STRATIFIED] * has_together + [POOLED] * has_bounds
    limits = _limits(forest)

    def draw(axes: Axes, item: Panel, is_first: bool) -> None:
        for place, cell in enumerate(item.cells):
            _draw_cell(axes, place, cell, theme)
        if item.together is not None:
            _draw_mark(axes, rows.index(STRATIFIED), item.together.estimate, theme.stratified, "D")
            _write(axes, rows.index(STRATIFIED), figure(item.together.estimate.value), theme)
        if item.bounds is not None:
            _draw_bounds(axes, rows.index(POOLED), item.bounds.low, item.bounds.high, theme)
        if forest.reference is not None:
            axes.axvline(forest.reference, color=theme.soft, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.set(xlim=limits, ylim=(len(rows) - 0.4, -0.75), xlabel=forest.axis)
        axes.set_yticks(range(len(rows)), rows if is_first else [""] * len(rows))
        axes.set_title(item.title, color=theme.ink, fontsize=_NORMAL, loc="left")

    return _panels(forest.panels, draw, _HEAD_IN + _ROW_IN * len(rows), theme)


def calibration_png(calibration: Calibration, theme: Theme) -> bytes:
    """A panel a site: the observed risk of each cell of tenths, with its interval, over the expected one."""
    told = [item for tenths in calibration.sites.values() for item in tenths]
    most = min(1.05 * max(max(item.expected, item.observed.high) for item in told), 1.0)

    def draw(axes: Axes, item: tuple[str, Sequence[Tenth]], is_first: bool) -> None:
        site, tenths = item
        axes.plot([0, 1], [0, 1], color=theme.soft, linewidth=0.8, linestyle=(0, (2, 3)))
        for tenth in tenths:
            axes.plot([tenth.expected] * 2, [tenth.observed.low, tenth.observed.high], color=theme.site, linewidth=1.4)
        expected, observed = [tenth.expected for tenth in tenths], [tenth.observed.value for tenth in tenths]
        axes.plot(expected, observed, color=theme.site, marker="o", markersize=4.5, linewidth=0.7)
        if not tenths:
            axes.text(0.5, 0.5, "not told", color=theme.soft, fontsize=_NORMAL, ha="center", transform=axes.transAxes)
        axes.set(xlim=(0, most), ylim=(0, most), xlabel="expected risk", aspect="equal")
        axes.tick_params(axis="y", labelcolor=theme.soft, labelsize=_SMALL)
        axes.set_title(site, color=theme.ink, fontsize=_NORMAL, loc="left")
        if is_first:
            axes.set_ylabel("observed risk")

    return _panels(tuple(calibration.sites.items()), draw, 2.5, theme)


def _draw_cell(axes: Axes, place: int, cell: Cell, theme: Theme) -> None:
    if cell.estimate is None:
        _write(axes, place, NOT_TOLD[cell.standing], theme, theme.soft)
        return
    _draw_mark(axes, place, cell.estimate, theme.site, "o")
    said = counts(cell.num_positive, cell.num_labelled)
    _write(axes, place, f"{figure(cell.estimate.value)}{f' · {said}' if said else ''}", theme)


def _draw_mark(axes: Axes, place: int, estimate: Estimate, colour: str, marker: str) -> None:
    if estimate.has_interval:
        axes.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=1.8, solid_capstyle="butt")
    axes.plot([estimate.value], [place], color=colour, marker=marker, markersize=6, linestyle=_NO_LINE)


def _draw_bounds(axes: Axes, place: int, low: float, high: float, theme: Theme) -> None:
    """A bar without a mark: bounds, no interval around a figure."""
    axes.barh(
        place, max(high - low, 0.002), left=low, height=0.26, color=theme.pooled, edgecolor=theme.ink, linewidth=0.6
    )
    _write(axes, place, f"{figure(low)} to {figure(high)}", theme)


def _write(axes: Axes, place: int, words: str, theme: Theme, colour: str | None = None) -> None:
    """Words above a row; the paper behind them keeps lines out."""
    written = axes.text(0.02, place - 0.3, words, color=colour or theme.ink, fontsize=_SMALL, va="center")
    written.set(transform=axes.get_yaxis_transform(), bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 1})


def _limits(forest: Forest) -> tuple[float, float]:
    """Of all panels, so that they can be compared."""
    found = [forest.reference] if forest.reference is not None else []
    for item in forest.panels:
        estimates = [cell.estimate for cell in item.cells]
        estimates += [item.together.estimate if item.together is not None else None]
        found += [end for one in estimates if one is not None for end in (one.low, one.value, one.high)]
        found += [item.bounds.low, item.bounds.high] if item.bounds is not None else []
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    room = 0.06 * (high - low) or 0.05
    return low - room, high + room


def _panels(items: Sequence[Any], draw: Callable[[Axes, Any, bool], None], height_in: float, theme: Theme) -> bytes:
    """Panels in rows; those of a row share the names at its left edge."""
    num_columns = min(len(items), _PANELS_A_ROW)
    num_rows = math.ceil(len(items) / num_columns)
    width_in = _WIDTH_IN * max(num_columns, 2) / _PANELS_A_ROW + 1.2 * (num_columns < _PANELS_A_ROW)
    picture = Figure(figsize=(width_in, height_in * num_rows), dpi=_DPI, layout="constrained", facecolor=theme.paper)
    grid = picture.subplots(num_rows, num_columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(items):
            axes.set_axis_off()
            continue
        _dress(axes, theme)
        draw(axes, items[place], place % num_columns == 0)
    file = BytesIO()
    picture.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _dress(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor(theme.paper)
    axes.tick_params(colors=theme.soft, labelsize=_SMALL, length=0)
    axes.tick_params(axis="y", labelcolor=theme.ink, labelsize=_NORMAL)
    axes.xaxis.label.set(color=theme.soft, fontsize=_SMALL)
    axes.yaxis.label.set(color=theme.soft, fontsize=_SMALL)
    axes.grid(axis="x", color=theme.line, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=theme.line)
