"""The few pieces of HTML of which the page is made; everything that is not HTML already is escaped here."""

import base64
from collections.abc import Sequence
from html import escape

from mammofed_simulation.demo.chart import COLOURS
from mammofed_simulation.demo.examples import Example, ExampleImage

_BOX_COLOURS = {"mass": "#ffd43b", "calcification": "#66d9e8"}
_SIDES = {"L": "left", "R": "right"}


def section(title: str, *parts: str) -> str:
    """A part of the page under a heading."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def paragraph(text: str, style: str = "") -> str:
    """A paragraph; words between back-ticks are set as code."""
    pieces = text.split("`")
    marked = "".join(
        f"<code>{escape(piece)}</code>" if index % 2 else escape(piece) for index, piece in enumerate(pieces)
    )
    return f'<p class="{style}">{marked}</p>' if style else f"<p>{marked}</p>"


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, num_words: int = 1, strong: Sequence[int] = ()
) -> str:
    """A table whose first ``num_words`` columns are words and whose others are numbers; ``strong`` rows stand out."""

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="{"n" if index >= num_words else "w"}">{escape(value)}</{tag}>'
            for index, value in enumerate(values)
        )

    body = "".join(
        f'<tr class="{"strong" if index in strong else "plain"}">{cells("td", row)}</tr>'
        for index, row in enumerate(rows)
    )
    return (
        f'<div class="scroll"><table><thead><tr>{cells("th", headings)}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def cards(figures: Sequence[tuple[str, str]]) -> str:
    """Large figures, each with what it is."""
    return (
        '<div class="cards">'
        + "".join(
            f'<div class="card"><b>{escape(figure)}</b><span>{escape(what)}</span></div>' for figure, what in figures
        )
        + "</div>"
    )


def figure(svg: str, caption: str) -> str:
    """A chart under its caption."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def example_figure(example: Example, size: tuple[int, int]) -> str:
    """The images of one example beside each other, with the boxes of their findings.

    Args:
        size: (height, width) of the images in pixels.
    """
    colour = COLOURS.get(example.title, "#1b1f24")
    images = "".join(_image(example, image, size) for image in example.images)
    return (
        f'<figure><h3 style="color:{colour}">{escape(example.title)}</h3><div class="views">{images}</div>'
        f"<figcaption>{escape(example.caption)}</figcaption></figure>"
    )


def _image(example: Example, image: ExampleImage, size: tuple[int, int]) -> str:
    height, width = size
    side, _, view = image.label.partition(" ")
    found = ", ".join(f"a box around a {box.finding}" for box in image.boxes) or "no marked finding"
    kind = "Phantom" if example.is_phantom else "Real"
    alt = escape(f"{kind} mammogram of {example.title}: {_SIDES.get(side, side)} breast, {view} view, {found}.")
    data = base64.b64encode(image.png).decode()
    boxes = "".join(
        f'<rect x="{box.left:.1f}" y="{box.top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" fill="none" '
        f'stroke="{_BOX_COLOURS[box.finding]}" stroke-width="1.5"><title>{escape(box.finding)}</title></rect>'
        for box in image.boxes
    )
    return (
        f'<div><svg viewBox="0 0 {width} {height}" role="img" aria-label="{alt}"><title>{alt}</title>'
        f'<image width="{width}" height="{height}" href="data:image/png;base64,{data}"/>{boxes}</svg>'
        f"<span>{escape(image.label)}</span></div>"
    )
