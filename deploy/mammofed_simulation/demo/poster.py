"""The same curves and example images as one PNG, for a slide or a message."""

import io
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")

import cv2
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mammofed_simulation.demo.chart import ALL_COLOUR, COLOURS
from mammofed_simulation.demo.examples import Example, ExampleImage
from mammofed_simulation.demo.results import ALL, FINDINGS, Results

_GRID = "#e3e6ea"
_NUM_IMAGES = 2
"""Images of each example, so that a row of four examples fits."""


def poster(results: Results, examples: Sequence[Example]) -> bytes:
    """Curves above, example images below, as PNG."""
    with pyplot.rc_context({"font.family": "DejaVu Sans", "font.size": 10, "axes.spines.right": False}):
        figure = pyplot.figure(figsize=(12, 8.2), dpi=120, layout="constrained")
        upper, lower = np.ravel(np.asarray(figure.subfigures(2, 1, height_ratios=[1.25, 1])))
        verdict = "the bar is met" if results.is_bar_met else "the bar is MISSED"
        upper.suptitle(
            f"Three phantom hospitals train one model · seed {results.seed} · {verdict}\n"
            "Phantoms are no clinical evidence.",
            fontsize=13,
            fontweight="bold",
        )
        for axes, finding in zip(upper.subplots(1, len(FINDINGS), sharey=True), FINDINGS, strict=True):
            _draw_curve(axes, results, finding)
        shown = [(example, image) for example in examples for image in _chosen(example)]
        if shown:
            for axes, (example, image) in zip(np.atleast_1d(lower.subplots(1, len(shown))), shown, strict=True):
                axes.imshow(cv2.imdecode(np.frombuffer(image.png, np.uint8), cv2.IMREAD_GRAYSCALE), cmap="gray")
                for box in image.boxes:
                    axes.add_patch(
                        Rectangle((box.left, box.top), box.width, box.height, fill=False, edgecolor="#ffd43b")
                    )
                axes.set_axis_off()
                kind = "phantom" if example.is_phantom else "real"
                axes.set_title(f"{example.title.partition(',')[0]}\n{image.label}, {kind}", fontsize=9)
            lower.supxlabel(
                "Real images: CBIS-DDSM (Lee et al., 2017; CC BY 3.0), prepared, not trained on", fontsize=8
            )
        out = io.BytesIO()
        figure.savefig(out, format="png")
        pyplot.close(figure)
    return out.getvalue()


def _chosen(example: Example) -> Sequence[ExampleImage]:
    """The images with boxes first."""
    return sorted(example.images, key=lambda image: not image.boxes)[:_NUM_IMAGES]


def _draw_curve(axes: Axes, results: Results, finding: str) -> None:
    turns = [point.turn for point in results.points]
    for place in (*results.sites, ALL):
        values = [point.auroc[finding].get(place) for point in results.points]
        known = [np.nan if value is None else value for value in values]
        width = 2.8 if place == ALL else 1.6
        axes.plot(turns, known, color=COLOURS.get(place, ALL_COLOUR), linewidth=width, label=place)
    styles = {"fedavg": (0, (5, 2)), "pooled": (0, (1, 1)), "baseline": (0, (3, 1, 1, 1))}
    for kind, style in styles.items():
        entry = results.entry(kind)
        value = entry.spread(finding, ALL)
        if value is not None:
            axes.axhline(value[0], color="#57606a", linewidth=1.2, linestyle=style, label=f"{entry.label} (all)")
    if results.interruption is not None:
        axes.axvline(results.interruption.visit, color="#57606a", linewidth=0.8, linestyle=":")
    axes.set_title(f"{finding}: zero-shot AUROC, held-out exams", loc="left", fontsize=11)
    axes.set_xlabel("visit (0: untrained)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(min(0.3, axes.get_ylim()[0]), 1.02)
    axes.grid(color=_GRID)
    axes.spines["top"].set_visible(False)
    axes.legend(fontsize=8, loc="lower right", frameon=False, ncols=2)
