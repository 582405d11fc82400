"""Line charts and dot plots as SVG text: no script, no file beside them, readable by a screen reader."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLOURS = {"central": "#0072b2", "mayo": "#d55e00", "emory": "#009e73"}
"""Okabe and Ito's palette: told apart by colour-blind readers too."""
ALL_COLOUR = "#1b1f24"
_GRID, _TEXT, _BAR = "#e3e6ea", "#57606a", "#b42318"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart; a value of None is a gap."""

    name: str
    colour: str
    values: Sequence[float | None]
    is_bold: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical mark at a position, with a word."""

    at: float
    word: str


@dataclass(frozen=True, slots=True)
class Dot:
    """One row of a dot plot: mean, lowest and highest; None leaves the row empty."""

    name: str
    value: tuple[float, float, float] | None
    is_bold: bool = False


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_title: str,
    bar: float | None = None,
    marks: Sequence[Mark] = (),
    low: float = 0.3,
) -> str:
    """AUROC over the turns of a run, 0 to the length of the lines less one.

    Args:
        title: read out by a screen reader; not drawn.
        bar: a value to be reached, drawn as a dashed line.
        low: where the axis begins; lower values move it down.
    """
    width, height, left, right, top, bottom = 480, 300, 40, 76, 14, 40
    known = [value for line in lines for value in line.values if value is not None]
    y = _Scale(_floor(min([low, *known])), 1.0, height - bottom, top)
    last = max(max((len(line.values) for line in lines), default=1) - 1, 1)
    x = _Scale(0, last, left, width - right)
    parts = [*_y_axis(y, left, width - right), *_x_axis(x, last, height - bottom, x_title)]
    if bar is not None:
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{y(bar)}" y2="{y(bar)}" stroke="{_BAR}" '
            f'stroke-dasharray="2 3"/>{_text(left + 4, y(bar) - 4, f"bar {bar:.2f}", _BAR)}'
        )
    for mark in marks:
        at = x(mark.at)
        parts.append(
            f'<line x1="{at}" x2="{at}" y1="{top}" y2="{height - bottom}" stroke="{_TEXT}" stroke-dasharray="4 3"/>'
            + (
                _text(at - 4, height - bottom - 6, mark.word, _TEXT, "end")
                if 2 * mark.at > last
                else _text(at + 4, height - bottom - 6, mark.word, _TEXT)
            )
        )
    parts += [_line(line, x, y) for line in lines]
    parts += _names(lines, y, width - right + 8)
    return _svg(title, width, height, parts)


def dot_plot(title: str, dots: Sequence[Dot], *, low: float = 0.3, bar: float | None = None) -> str:
    """One row a model: its mean as a dot, lowest and highest as a whisker.

    Args:
        title, low, bar: as in ``line_chart``.
    """
    width, left, right, top, row_height = 480, 152, 50, 10, 26
    height = top + row_height * len(dots) + 30
    known = [dot.value[1] for dot in dots if dot.value is not None]
    x = _Scale(_floor(min([low, *known])), 1.0, left, width - right)
    parts = []
    for tick in _ticks(x.low):
        parts.append(f'<line x1="{x(tick)}" x2="{x(tick)}" y1="{top}" y2="{height - 28}" stroke="{_GRID}"/>')
        parts.append(_text(x(tick), height - 12, f"{tick:.1f}", _TEXT, "middle"))
    if bar is not None:
        parts.append(
            f'<line x1="{x(bar)}" x2="{x(bar)}" y1="{top}" y2="{height - 28}" stroke="{_BAR}" stroke-dasharray="2 3"/>'
        )
    for index, dot in enumerate(dots):
        middle = top + row_height * (index + 0.5)
        weight = ' font-weight="650"' if dot.is_bold else ""
        parts.append(
            f'<text x="{left - 12}" y="{middle + 4}" text-anchor="end" fill="{ALL_COLOUR}"{weight}>'
            f"{escape(dot.name)}</text>"
        )
        if dot.value is None:
            continue
        mean, least, most = dot.value
        colour = COLOURS["central"] if dot.is_bold else _TEXT
        parts.append(
            f'<line x1="{x(least)}" x2="{x(most)}" y1="{middle}" y2="{middle}" stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(f'<circle cx="{x(mean)}" cy="{middle}" r="5" fill="{colour}"/>')
        parts.append(_text(width - right + 12, middle + 4, f"{mean:.3f}", ALL_COLOUR))
    return _svg(title, width, height, parts)


def _svg(title: str, width: int, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}" font-size="12">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _floor(value: float) -> float:
    return int(value * 10) / 10


def _ticks(low: float) -> list[float]:
    return [tick / 10 for tick in range(round(low * 10), 11)]


def _y_axis(y: _Scale, start: float, end: float) -> list[str]:
    parts = []
    for tick in _ticks(y.low):
        colour = _TEXT if tick == 0.5 else _GRID
        parts.append(f'<line x1="{start}" x2="{end}" y1="{y(tick)}" y2="{y(tick)}" stroke="{colour}" opacity="0.8"/>')
        parts.append(_text(start - 8, y(tick) + 4, f"{tick:.1f}", _TEXT, "end"))
    return parts


def _x_axis(x: _Scale, last: int, bottom: float, title: str) -> list[str]:
    step = 1 if last <= 10 else 3
    parts = [_text(x(tick), bottom + 16, str(tick), _TEXT, "middle") for tick in range(0, last + 1, step)]
    return [*parts, _text((x.start + x.end) / 2, bottom + 33, title, _TEXT, "middle")]


def _line(line: Line, x: _Scale, y: _Scale) -> str:
    stretches: list[list[str]] = [[]]
    for index, value in enumerate(line.values):
        if value is None:
            stretches.append([])
        else:
            stretches[-1].append(f"{x(index)},{y(value)}")
    width = 3 if line.is_bold else 1.8
    return "".join(
        f'<polyline points="{" ".join(points)}" fill="none" stroke="{line.colour}" stroke-width="{width}" '
        f'stroke-linejoin="round"><title>{escape(line.name)}</title></polyline>'
        for points in stretches
        if points
    )


def _names(lines: Sequence[Line], y: _Scale, at: float) -> list[str]:
    """Names at the ends of the lines, moved apart where they would lie on each other."""
    ends = [(y(line.values[-1]), line) for line in lines if line.values and line.values[-1] is not None]
    parts, before = [], -100.0
    for end, line in sorted(ends, key=lambda item: item[0]):
        place = max(end, before + 15)
        before = place
        weight = ' font-weight="650"' if line.is_bold else ""
        parts.append(f'<text x="{at}" y="{place + 4}" fill="{line.colour}"{weight}>{escape(line.name)}</text>')
    return parts


def _text(x: float, y: float, words: str, colour: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}" text-anchor="{anchor}">{escape(words)}</text>'
