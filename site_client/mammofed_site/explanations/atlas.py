"""The atlas of a site's neurons. Torch lives here; ``command.py`` loads this module by name.

<folder>/explanations/atlas.html
<folder>/explanations/atlas-<identity>/top.safetensors    which images fire each neuron most (neuron_atlas.py)
<folder>/explanations/atlas-<identity>/<N>-neurons/       which sentences go with the N most active ones

Images are taken in the order of their digests, so that of more than are asked for a fair part is looked at. A second
call goes on where the first was ended, as long as models, images and numbers are the same.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.data.image_text import load_grey
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.errors import ConfigurationError, DataError, VisitFailed
from mammofed_shared.interpretability.neuron_atlas import TopImages
from mammofed_shared.interpretability.sentence import report_sentences
from mammofed_site.explanations.atlas_page import AtlasContent, AtlasNeuron, AtlasPicture, write_atlas_page
from mammofed_site.explanations.atlas_passes import AtlasImage, choose_images, name_neurons
from mammofed_site.explanations.command import PAGES_FOLDER, AtlasRequest
from mammofed_site.explanations.models import FrozenModel, Origin, frozen_model, load_reader
from mammofed_site.explanations.pictures import cell_box, thumbnail_uri
from mammofed_site.torch_device import device_of

Told = Callable[[str, int, int], None]
"""``images`` or ``sentences``, how many are done, and of how many."""


def make_atlas(settings: SiteSettings, request: AtlasRequest, told: Told) -> Path:
    """Write ``<folder>/explanations/atlas.html`` and give its path.

    Args:
        told: called after each image of either pass.

    Raises:
        ConfigurationError: a model is missing, of another run, or gives no numbers.
        DataError: no image of this site can be read.
    """
    torch.set_num_threads(settings.worker.threads)
    frozen = frozen_model(settings)
    reader, origin = load_reader(frozen, request.autoencoder, device_of(settings.worker.device))
    images = atlas_images(settings, frozen, request.most_images)
    folder = settings.folder / PAGES_FOLDER
    kept = folder / f"atlas-{_identity(frozen, origin, request, images)}"
    named_in = kept / f"{request.num_neurons}-neurons"
    named_in.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # so nobody else gets to what is below
    top = choose_images(
        reader,
        images,
        kept / "top.safetensors",
        request.images_per_neuron,
        settings.worker.loaders,
        partial(told, "images"),
    )
    neurons = top.busiest(request.num_neurons)
    if not neurons:
        raise DataError("no neuron fires in any image of this site that can be read: nothing can be shown")
    try:
        named = name_neurons(reader, images, top, neurons, named_in, partial(told, "sentences"))
    except VisitFailed as error:  # what a visit would tell the coordinator is told here
        raise ConfigurationError(f"the models give no explanation: {error}") from error
    content = AtlasContent(
        site=settings.site,
        num_images=top.num_images,
        num_neurons=len(top.activity),
        num_silent=int((top.activity == 0).sum()),
        neurons=_neurons(images, top, neurons, named),
        origins=(Origin("frozen model", "", 0, "", frozen.digest), origin),
    )
    write_atlas_page(folder / "atlas.html", content)
    return folder / "atlas.html"


def atlas_images(settings: SiteSettings, frozen: FrozenModel, most: int) -> list[AtlasImage]:
    """Images of this site with the reports of their exams, each of different pixels, in the order of their digests.

    Raises:
        DataError: a data set is not prepared, or otherwise than the frozen model asks.
    """
    prepared = [(item.name, settings.prepared_folder(item)) for item in settings.datasets]
    exams = read_exams(prepared, frozen.preprocessing)
    found = {image.png_sha256: AtlasImage(image, exam.report) for exam in exams for image in exam.images}
    return [found[digest] for digest in sorted(found)[:most]]


def _neurons(
    images: Sequence[AtlasImage], top: TopImages, neurons: Sequence[int], named: Mapping[int, str]
) -> tuple[AtlasNeuron, ...]:
    total = float(top.activity.sum())
    return tuple(
        AtlasNeuron(
            neuron=neuron,
            share=float(top.activity[neuron]) / total,
            sentence=named.get(neuron),
            pictures=_pictures(images, top, neuron),
        )
        for neuron in neurons
    )


def _pictures(images: Sequence[AtlasImage], top: TopImages, neuron: int) -> tuple[AtlasPicture, ...]:
    found = []
    for image, cell, _ in top.of_neuron(neuron):
        shown = images[image].image
        try:
            grey = load_grey(shown)
        except DataError:  # it could be read a moment ago
            continue
        box = cell_box(divmod(cell, top.map_size[1]), top.map_size, (grey.shape[0], grey.shape[1]))
        found.append(AtlasPicture(f"{shown.laterality} {shown.view}", thumbnail_uri(grey, box)))
    return tuple(found)


def _identity(frozen: FrozenModel, origin: Origin, request: AtlasRequest, images: Sequence[AtlasImage]) -> str:
    """Changes with all that the passes hang on."""
    parts: list[object] = [frozen.digest, origin.digest, request.images_per_neuron]
    parts += [[item.image.png_sha256, report_sentences(item.report)] for item in images]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
