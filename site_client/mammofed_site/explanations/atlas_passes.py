"""The two passes of the atlas over a site's images: which fire each neuron most, and which sentences go with them.

What a pass has done is written down twice a minute, so a killed one goes on. An image that cannot be read is passed
over.
"""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mammofed_shared.data.batches import loaded_ahead
from mammofed_shared.data.image_text import load_grey
from mammofed_shared.errors import DataError, PayloadError
from mammofed_shared.exam import Image, Report
from mammofed_shared.files import write_whole
from mammofed_shared.interpretability.ablation import Reader, sentences_lost
from mammofed_shared.interpretability.neuron_atlas import TopImages
from mammofed_shared.interpretability.sentence import chosen
from mammofed_shared.interpretability.sparse_maps import SparseMaps
from mammofed_shared.protocol.payload import Payload, write_payload

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
Grey = NDArray[np.uint8]
Said = dict[int, dict[int, tuple[str, float]]]
"""Image → neuron → the sentence of its report that loses most without the neuron, and its share."""
_KEEP_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class AtlasImage:
    """An image, and the report of its exam."""

    image: Image
    report: Report | None


def choose_images(
    reader: Reader, images: Sequence[AtlasImage], kept: Path, num_top: int, loaders: int, report: Progress
) -> TopImages:
    """Look at all images, and give of each neuron those in which it fires most.

    Args:
        kept: file of what was done; equal images and models go on from it.
        loaders: threads that read ahead.
        report: called after each image with how many were looked at, and of how many.
    """
    top = _kept_choice(kept) or TopImages(reader.autoencoder.decoder.shape[0], num_top)
    kept_s = time.monotonic()
    for grey in _greys(images[top.num_images :], loaders):
        if grey is None:
            top.pass_over()
        else:
            top.add(top.num_images, code_of(reader, grey))
        report(top.num_images, len(images))
        if time.monotonic() - kept_s > _KEEP_EVERY_S:
            write_payload(kept, top.state())
            kept_s = time.monotonic()
    write_payload(kept, top.state())
    return top


def name_neurons(
    reader: Reader,
    images: Sequence[AtlasImage],
    top: TopImages,
    neurons: Sequence[int],
    kept: Path,
    report: Progress,
) -> Said:
    """Turn each neuron off in each of its images, and give the sentences that lose most.

    An image without report, or none of whose sentences loses, says nothing.

    Args:
        kept, report: as for ``choose_images``.
    """
    neurons_of: dict[int, list[int]] = defaultdict(list)
    for neuron in neurons:
        for image, _, _ in top.of_neuron(neuron):
            neurons_of[image].append(neuron)
    said = _kept_sentences(kept)
    kept_s = time.monotonic()
    for done, image in enumerate(sorted(neurons_of), 1):
        if image not in said:
            said[image] = _said(reader, images[image], neurons_of[image])
        report(done, len(neurons_of))
        if time.monotonic() - kept_s > _KEEP_EVERY_S:
            write_whole(kept, json.dumps(said), mode=0o600)
            kept_s = time.monotonic()
    write_whole(kept, json.dumps(said), mode=0o600)
    return said


@torch.no_grad()
def code_of(reader: Reader, grey_HW: Grey) -> SparseMaps:
    """The code of one image."""
    greys_1HW = torch.from_numpy(grey_HW[None]).to(reader.device)
    return reader.code(reader.encoder.image_encoder.feature_map(greys_1HW).float())


def _said(reader: Reader, image: AtlasImage, neurons: Sequence[int]) -> dict[int, tuple[str, float]]:
    try:
        coalitions = reader.coalitions(code_of(reader, load_grey(image.image)))
    except DataError:  # it could be read a moment ago
        return {}
    lost = sentences_lost(reader, coalitions, image.report, [[neuron] for neuron in neurons])
    found = {neuron: chosen(drops) for neuron, drops in zip(neurons, lost, strict=True)}
    return {neuron: (drop.sentence, drop.share) for neuron, drop in found.items() if drop is not None}


def _greys(images: Sequence[AtlasImage], loaders: int) -> Iterator[Grey | None]:
    return loaded_ahead([partial(_grey, item.image) for item in images], loaders)


def _grey(image: Image) -> Grey | None:
    try:
        return load_grey(image)
    except DataError as error:
        logger.warning("%s", error)
        return None


def _kept_choice(path: Path) -> TopImages | None:
    """What an earlier call has done; None where there was none, or its file is damaged."""
    try:
        with Payload(path) as payload:
            return TopImages.from_state({name: payload[name] for name in payload})
    except (OSError, PayloadError):
        return None


def _kept_sentences(path: Path) -> Said:
    try:
        kept: Mapping[str, Mapping[str, tuple[str, float]]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged
        return {}
    return {
        int(image): {int(neuron): (said[0], said[1]) for neuron, said in of_image.items()}
        for image, of_image in kept.items()
    }
