"""The atlas' page: the neurons with their images and sentences, laid into one HTML file."""

from dataclasses import dataclass
from pathlib import Path

from mammofed_shared.files import write_whole
from mammofed_site.explanations.models import Origin
from mammofed_site.explanations.page import environment


@dataclass(frozen=True, slots=True)
class AtlasPicture:
    """A thumbnail on which the place is marked, and its view."""

    label: str
    picture: str


@dataclass(frozen=True, slots=True)
class AtlasNeuron:
    """One neuron: its share of all activity, the sentence that goes with it, and the images that fire it most."""

    neuron: int
    share: float
    sentence: str | None
    pictures: tuple[AtlasPicture, ...]


@dataclass(frozen=True, slots=True)
class AtlasContent:
    """What the atlas tells; ``num_silent`` neurons fired in none of the images."""

    site: str
    num_images: int
    num_neurons: int
    num_silent: int
    neurons: tuple[AtlasNeuron, ...]
    origins: tuple[Origin, ...]


def write_atlas_page(out: Path, content: AtlasContent) -> None:
    """Write the page, readable by its owner only; equal contents give equal bytes."""
    write_whole(out, environment().get_template("atlas.html.j2").render(content=content), mode=0o600)
