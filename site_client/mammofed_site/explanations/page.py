"""The page on one exam's risk: everything laid into one HTML file that needs no network and no script."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mammofed_shared.exam import Exam, Laterality, Split, View
from mammofed_shared.files import write_whole
from mammofed_shared.interpretability.asymmetry_map import AsymmetryExplanation
from mammofed_shared.interpretability.exam_maps import ExamMaps, Place
from mammofed_shared.interpretability.neuron_parts import NeuronExplanation, NeuronPart
from mammofed_shared.interpretability.pointing import Box
from mammofed_shared.interpretability.sentence import SentenceDrop, chosen, report_sentences
from mammofed_site.explanations.models import Origin
from mammofed_site.explanations.pictures import LOWERS, RAISES, cell_box, heat_uri, mammogram_uri

HANGING: tuple[Place, ...] = tuple((side, view) for view in View for side in (Laterality.R, Laterality.L))
"""How radiologists hang mammograms: right beside left with the chest walls together, CC above MLO. Stored images all
have the chest wall left, so those of the right breast are drawn mirrored."""
_SIDES = {Laterality.R: "right", Laterality.L: "left"}
_BAR_WIDTH, _BAR_HEIGHT = 180, 14


@dataclass(frozen=True, slots=True)
class PageContent:
    """What a page tells: of MIRAI's head ``neurons``, of AsymMIRAI's ``pairs``; at least one of both."""

    site: str
    exam: Exam
    maps: ExamMaps
    neurons: NeuronExplanation | None
    pairs: AsymmetryExplanation | None
    permutations: int
    origins: tuple[Origin, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One image of the page: ``picture`` is the id of the mammogram, ``overlay`` lies on it, ``box`` is drawn."""

    name: str
    alt: str
    picture: str
    overlay: str
    is_mirrored: bool
    box: Box | None


def write_explanation_page(out: Path, content: PageContent) -> None:
    """Write the page, readable by its owner only; equal contents give equal bytes.

    Args:
        out: the HTML file; its folder is made.
    """
    out.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    neurons = content.neurons
    page = (
        environment()
        .get_template("page.html.j2")
        .render(
            content=content,
            size=content.maps.image_size,
            pictures=[(_id(place), mammogram_uri(grey)) for place, grey in zip(*_views(content.maps), strict=True)],
            panels=[] if neurons is None else _heat_panels(content.maps, neurons.heat),
            pairs=[] if content.pairs is None else _pair_panels(content.maps, content.pairs),
            missing=[_name(place) for place in HANGING if place not in content.maps.views],
            risks=_risk_rows(content),
            parts=[]
            if neurons is None
            else [(part, _bar(part, neurons.parts), chosen(part.sentences)) for part in neurons.parts],
            sentence=None if neurons is None else chosen(neurons.sentences),
            report=_report_rows(content.exam, neurons),
            was_trained_on=content.exam.split is Split.TRAIN,
            raises=f"rgb{RAISES}",
            lowers=f"rgb{LOWERS}",
        )
    )
    write_whole(out, page, mode=0o600)


def environment() -> jinja2.Environment:
    """Templates of this folder; everything that is put into one is escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": _percent, "points": _points, "number": "{:,}".format}
    return made


def _views(maps: ExamMaps) -> tuple[Sequence[Place], NDArray[np.uint8]]:
    return maps.views, maps.greys


def _heat_panels(maps: ExamMaps, heat_Vhw: NDArray[np.float32]) -> list[Panel]:
    """The views with their heat; a box marks the cell that raises the risk most, if any does."""
    strongest = float(np.abs(heat_Vhw).max())
    highest = np.unravel_index(int(heat_Vhw.argmax()), heat_Vhw.shape)
    mark = cell_box((int(highest[1]), int(highest[2])), maps.map_size, maps.image_size) if heat_Vhw.max() > 0 else None
    panels = []
    for place in _hung(maps):
        number = maps.views.index(place)
        is_marked = mark is not None and number == highest[0]
        told = (
            "the place that raises the risk most is marked"
            if is_marked
            else "overlay of what raises and lowers the risk"
        )
        overlay = heat_uri(heat_Vhw[number], maps.image_size, strongest)
        panels.append(_panel(place, told, overlay, mark if is_marked else None))
    return panels


def _pair_panels(maps: ExamMaps, found: AsymmetryExplanation) -> list[tuple[str, float, list[Panel]]]:
    """Of each view of both breasts: its name, its score, and both images with map and window."""
    pairs = []
    for view, item in found.maps.items():
        # Breasts differ a little everywhere: what is drawn is how far a place is above the middle one.
        above = np.maximum(item.cells - np.median(item.cells), 0)
        overlay = heat_uri(above, maps.image_size, float(above.max()))
        told = "the window in which the breasts differ most is marked"
        panels = [_panel((side, view), told, overlay, item.window) for side in (Laterality.R, Laterality.L)]
        pairs.append((str(view), item.score, panels))
    return pairs


def _panel(place: Place, told: str, overlay: str, box: Box | None) -> Panel:
    side, view = place
    alt = f"Mammogram of the {_SIDES[side]} breast, {view} view: {told}."
    return Panel(_name(place), alt, _id(place), overlay, side is Laterality.R, box)


def _risk_rows(content: PageContent) -> list[tuple[str, tuple[float, ...]]]:
    """Heads and their risks of the years 1 to 5."""
    rows = []
    if content.neurons is not None:
        rows.append(("MIRAI w/ Mammo-FM", content.neurons.risks))
    if content.pairs is not None:
        rows.append(("AsymMIRAI w/ Mammo-FM", content.pairs.risks))
    return rows


def _report_rows(exam: Exam, found: NeuronExplanation | None) -> list[tuple[str, SentenceDrop | None]]:
    """The report's sentences in their order, each with what it loses without the neurons that raise the risk."""
    told = {} if found is None else {item.sentence: item for item in found.sentences}
    return [(sentence, told.get(sentence)) for sentence in report_sentences(exam.report)]


def _bar(part: NeuronPart, parts: Sequence[NeuronPart]) -> Markup:
    """A bar to the right of the middle for what raises the risk, to the left for what lowers it."""
    half = _BAR_WIDTH / 2
    longest = max(abs(item.contribution) for item in parts) or 1.0
    length = abs(part.contribution) / longest * (half - 2)
    left = half if part.contribution > 0 else half - length
    colour = RAISES if part.contribution > 0 else LOWERS
    return Markup(
        '<svg class="bar" viewBox="0 0 {0} {1}" width="{0}" height="{1}" aria-hidden="true">'
        '<rect x="{2:.1f}" y="1" width="{3:.1f}" height="{4}" fill="rgb{5}"/>'
        '<path d="M{6} 0V{1}" stroke="#57606a"/></svg>'
    ).format(_BAR_WIDTH, _BAR_HEIGHT, left, length, _BAR_HEIGHT - 2, colour, half)


def _hung(maps: ExamMaps) -> list[Place]:
    return [place for place in HANGING if place in maps.views]


def _name(place: Place) -> str:
    return f"{place[0]} {place[1]}"


def _id(place: Place) -> str:
    return f"view-{place[0]}{place[1]}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(risk: float) -> str:
    """A difference of risks in percentage points, with its sign; what is there at all is never 0."""
    points = 100 * risk
    if 0 < abs(points) < 0.01:
        return "< 0.01" if points > 0 else "> −0.01"
    return f"{points:+.2f}".replace("-", "−")
