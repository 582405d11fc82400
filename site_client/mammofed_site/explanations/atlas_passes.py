"""The passes of the atlas over a site's images: which fire each neuron most, and which sentence goes with it.

What a pass has done is written down twice a minute, so a killed one goes on. An image that cannot be read is passed
over.

Shapes: H rows and W columns of an image, D dimensions of the shared space, R rows that are computed one after the
other.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from mammofed_shared.data.batches import loaded_ahead
from mammofed_shared.data.image_text import load_grey
from mammofed_shared.errors import DataError, PayloadError
from mammofed_shared.evaluation.embed import embed_texts
from mammofed_shared.exam import Image, Report
from mammofed_shared.interpretability.ablation import Reader
from mammofed_shared.interpretability.neuron_atlas import TopImages
from mammofed_shared.interpretability.sentence import report_sentences
from mammofed_shared.interpretability.sparse_maps import SparseMaps
from mammofed_shared.protocol.payload import Payload, write_payload

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
Grey = NDArray[np.uint8]
Rows = NDArray[np.float32]
_KEEP_EVERY_S = 30.0
_TEXTS_AT_ONCE = 64
_Part = TypeVar("_Part", bound=Sequence[Any])


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
        report: called at the beginning and after each image with how many were looked at, and of how many.
    """
    top = _kept_choice(kept) or TopImages(reader.autoencoder.decoder.shape[0], num_top)
    kept_s = time.monotonic()
    report(top.num_images, len(images))
    for grey in _greys(images[top.num_images :], loaders):
        if grey is None:
            top.pass_over()
        else:
            top.add(top.num_images, _code(reader, grey))
        report(top.num_images, len(images))
        if time.monotonic() - kept_s > _KEEP_EVERY_S:
            write_payload(kept, top.state())
            kept_s = time.monotonic()
    write_payload(kept, top.state())
    return top


def name_neurons(
    reader: Reader, images: Sequence[AtlasImage], top: TopImages, neurons: Sequence[int], kept: Path, report: Progress
) -> dict[int, str]:
    """Neuron → the sentence, of all in the reports of its images, whose likeness to these images drops most in the
    mean when the neuron is off. A neuron without such a sentence is absent.

    Args:
        kept: folder of what was done, as for ``choose_images``.
        report: called with the number of ablations and sentences that are done, and of all.

    Raises:
        VisitFailed: NOT_FINITE, the text encoder gives no number.
    """
    pairs = sorted({(image, neuron) for neuron in neurons for image, _, _ in top.of_neuron(neuron)})
    sentences_of = {
        neuron: list(
            dict.fromkeys(
                sentence for image, _, _ in top.of_neuron(neuron) for sentence in report_sentences(images[image].report)
            )
        )
        for neuron in neurons
    }
    sentences = sorted({sentence for own in sentences_of.values() for sentence in own})
    total = len(pairs) + len(sentences)
    lost_RD = _kept_rows(
        kept / "lost.safetensors",
        [list(of_image) for _, of_image in groupby(pairs, key=lambda pair: pair[0])],
        lambda part: _lost(reader, images[part[0][0]], [neuron for _, neuron in part]),
        lambda done: report(done, total),
    )
    text_RD = _kept_rows(
        kept / "sentences.safetensors",
        [sentences[start : start + _TEXTS_AT_ONCE] for start in range(0, len(sentences), _TEXTS_AT_ONCE)],
        lambda part: embed_texts(reader.encoder, reader.tokenizer, reader.device, part).numpy(),
        lambda done: report(len(pairs) + done, total),
    )
    return _named(pairs, lost_RD, dict(zip(sentences, text_RD, strict=True)), sentences_of)


def _named(
    pairs: Sequence[tuple[int, int]],
    lost_RD: Rows,
    texts: dict[str, Rows],
    sentences_of: dict[int, list[str]],
) -> dict[int, str]:
    named: dict[int, str] = {}
    for neuron, sentences in sentences_of.items():
        lost_D = lost_RD[[own == neuron for _, own in pairs]].mean(axis=0)
        drops = [float(texts[sentence] @ lost_D) for sentence in sentences]
        if drops and max(drops) > 0:
            named[neuron] = sentences[int(np.argmax(drops))]
    return named


@torch.no_grad()
def _code(reader: Reader, grey_HW: Grey) -> SparseMaps:
    greys_1HW = torch.from_numpy(grey_HW[None]).to(reader.device)
    return reader.code(reader.encoder.image_encoder.feature_map(greys_1HW).float())


@torch.no_grad()
def _lost(reader: Reader, image: AtlasImage, neurons: Sequence[int]) -> Rows:
    """What an image's vector loses without each of these neurons, (R, D); nothing where it cannot be read any more."""
    try:
        coalitions = reader.coalitions(_code(reader, load_grey(image.image)))
    except DataError:
        return np.zeros((len(neurons), reader.encoder.image_projection.out_features), np.float32)
    on_MA = torch.cat([coalitions.without(off) for off in ([], *([neuron] for neuron in neurons))])
    image_MD = reader.encoder.project_images(coalitions.pooled(on_MA))[:, 0]
    lost_RD: Rows = (image_MD[:1] - image_MD[1:]).cpu().numpy()
    return lost_RD


def _kept_rows(
    path: Path, parts: Sequence[_Part], compute: Callable[[_Part], Rows], report: Callable[[int], None]
) -> Rows:
    """Rows of all parts, one row for each of their members; those that the file holds are not computed again."""
    rows: list[Rows] = list(_kept(path))
    kept_s = time.monotonic()
    done = 0
    for part in parts:
        done += len(part)
        if len(rows) < done:
            rows += list(compute(part))
            if time.monotonic() - kept_s > _KEEP_EVERY_S:
                write_payload(path, {"rows": np.stack(rows)})
                kept_s = time.monotonic()
        report(done)
    if rows:
        write_payload(path, {"rows": np.stack(rows)})
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def _kept(path: Path) -> Rows:
    try:
        with Payload(path) as payload:
            rows: Rows = payload["rows"].copy()
            return rows
    except (OSError, PayloadError, KeyError):  # none yet, or damaged
        return np.zeros((0, 0), np.float32)


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
    except (OSError, PayloadError, KeyError):
        return None
