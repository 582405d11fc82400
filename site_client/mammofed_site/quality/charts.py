"""Bars and histograms as SVG text: no script, no file beside them, readable by a screen reader and on paper."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mammofed_site.quality.counts import SIZE_BASE, Tally

Bar = tuple[str, int]
"""A label and how many."""

_INK, _SOFT, _FILL = "#1b1f24", "#57606a", "#4477aa"
_LONG_LABEL = 20
"""Labels with more letters get the wider margin."""


def bars(title: str, values: Sequence[Bar]) -> Markup:
    """Horizontal bars, each with its label before and its count behind it.

    Args:
        title: read out by a screen reader; not drawn.
    """
    left = 190 if any(len(label) > _LONG_LABEL for label, _ in values) else 120
    width, right, height = 420, 66, 24
    most = max((number for _, number in values), default=1) or 1
    parts = []
    for index, (label, number) in enumerate(values):
        middle = height * index + height / 2
        # What is there at all is seen: the shortest bar has 1 pixel.
        length = max(number / most * (width - left - right), 1) if number else 0
        parts += [
            _text(left - 8, middle + 4, label, _INK, "end"),
            Markup('<rect x="{}" y="{}" width="{:.1f}" height="{}" fill="{}"/>').format(
                left, middle - 7, length, 14, _FILL
            ),
            _text(left + length + 6, middle + 4, f"{number:,}", _SOFT),
        ]
    return _svg(title, width, height * max(len(values), 1), parts)


def histogram(title: str, values: Sequence[float], ticks: Sequence[tuple[int, str]], x_title: str) -> Markup:
    """Vertical bars without a gap.

    Args:
        values: one a bin; their heights are drawn against the largest.
        ticks: number of the bin at whose left edge a label stands, and the label.
    """
    width, left, right, top, bottom = 420, 10, 20, 8, 44
    height = 150
    most = max([*values, 0.0]) or 1.0
    step = (width - left - right) / len(values)
    base = height - bottom
    parts = [
        Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}"/>').format(
            left + step * index + 0.5, base - (base - top) * value / most, step - 1, (base - top) * value / most, _FILL
        )
        for index, value in enumerate(values)
        if value
    ]
    parts.append(Markup('<path d="M{} {}H{}" stroke="{}"/>').format(left, base, width - right, _INK))
    parts += [_text(left + step * at, base + 16, label, _SOFT, "middle" if at else "start") for at, label in ticks]
    parts.append(_text((left + width - right) / 2, height - 8, x_title, _SOFT, "middle"))
    return _svg(title, width, height, parts)


def most_frequent(sizes: Tally, num: int = 6, step: int = 512) -> list[Bar]:
    """Sizes and their counts, the most frequent first, the others together.

    Film has a size for every sheet: where there are many, sizes are taken together in steps of 512.
    """
    rows, columns = np.divmod(sizes[0], SIZE_BASE)
    is_film = sizes.shape[1] > 2 * num
    if is_film:
        rows, columns = rows // step * step, columns // step * step
    found, place = np.unique(rows * SIZE_BASE + columns, return_inverse=True)
    numbers = np.bincount(place, sizes[1]).astype(np.int64)
    order = np.argsort(-numbers, kind="stable")
    extent = step if is_film else 1
    shown = [
        (f"{_range(found[at] // SIZE_BASE, extent)} × {_range(found[at] % SIZE_BASE, extent)}", int(numbers[at]))
        for at in order[:num]
    ]
    rest = int(numbers[order[num:]].sum())
    return [*shown, ("other sizes", rest)] if rest else shown


def in_bins(lengths: NDArray[np.int64], width: int, num: int) -> list[int]:
    """From counts of 0, of 1, of 2, … to counts of bins so wide; the last bin takes all that is longer."""
    bins = np.minimum(np.arange(len(lengths)) // width, num - 1)
    return [int(number) for number in np.bincount(bins, weights=lengths, minlength=num)]


def _range(low: int, extent: int) -> str:
    return str(low) if extent == 1 else f"{low}–{low + extent - 1}"


def _text(x: float, y: float, words: str, colour: str, anchor: str = "start") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" fill="{}" text-anchor="{}">{}</text>').format(
        x, y, colour, anchor, words
    )


def _svg(title: str, width: int, height: int, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" font-size="12"><title>{}</title>{}</svg>'
    ).format(width, height, title, title, Markup("").join(parts))
