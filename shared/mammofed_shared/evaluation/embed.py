"""Images and texts of a site as vectors, for evaluation: nothing of the model moves."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mammofed_shared.data.batches import loaded_ahead
from mammofed_shared.data.image_text import load_grey, stack_greys
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.exam import Image
from mammofed_shared.models.dual_encoder import DualEncoder
from mammofed_shared.report.tokenize import ReportTokenizer

_TEXTS_AT_ONCE = 64


@contextmanager
def unmoved(
    model: nn.Module, device: torch.device, precision: Literal["fp32", "bf16", "fp16"] = "fp32"
) -> Iterator[None]:
    """Evaluation mode without gradients in the precision of autocast; afterwards each module in the mode in which it
    was."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        low = torch.float16 if precision == "fp16" else torch.bfloat16
        with torch.no_grad(), torch.autocast(device.type, low, enabled=precision != "fp32"):
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


def embed_images(
    encode: Callable[[Tensor], Tensor],
    images: Sequence[Image],
    *,
    batch_size: int,
    device: torch.device,
    loaders: int,
    report: Callable[[int, int], None],
) -> Tensor:
    """Vectors of all images in their order, (images, features) float32 on the CPU.

    Where a batch does not fit into memory, it and all after it are encoded in halves.

    Args:
        encode: greys (B, H, W) → vectors (B, features): ``DualEncoder.embed_images``, or its image encoder alone.
        report: called after each batch with the number of batches done and of all.

    Raises:
        VisitFailed: OUT_OF_MEMORY, with one image; NOT_FINITE, the model gives a vector that is not finite.
    """
    starts = range(0, len(images), batch_size)
    loading = [partial(_load, images[start : start + batch_size]) for start in starts]
    embedded: list[Tensor] = []
    at_once = batch_size
    for batch in loaded_ahead(loading, loaders):
        vectors, at_once = encoded(encode, (torch.from_numpy(batch),), device, at_once)
        embedded.append(vectors)
        report(len(embedded), len(starts))
    return _finite(torch.cat(embedded))


def embed_texts(model: DualEncoder, tokenizer: ReportTokenizer, device: torch.device, texts: Sequence[str]) -> Tensor:
    """Unit vectors of texts, (texts, dimensions) float32 on the CPU.

    Raises:
        VisitFailed: NOT_FINITE, as ``embed_images``.
    """
    embedded: list[Tensor] = []
    at_once = _TEXTS_AT_ONCE
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        tokens = tokenizer(texts[start : start + _TEXTS_AT_ONCE])
        both = torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask)
        vectors, at_once = encoded(model.embed_texts, both, device, at_once)
        embedded.append(vectors)
    return _finite(torch.cat(embedded))


def encoded(
    encode: Callable[..., Tensor], rows: tuple[Tensor, ...], device: torch.device, at_once: int
) -> tuple[Tensor, int]:
    """What an encoder gives for one batch, in float32 on the CPU, and how many images (or texts) fitted at once.

    Raises:
        VisitFailed: OUT_OF_MEMORY, with one of them.
    """
    while True:
        try:
            starts = range(0, len(rows[0]), at_once)
            parts = [
                encode(*(item[start : start + at_once].to(device) for item in rows)).float().cpu() for start in starts
            ]
        except torch.OutOfMemoryError as error:
            if at_once == 1:
                raise VisitFailed(
                    RefusalCode.OUT_OF_MEMORY, "one image or text does not fit into the memory of the device"
                ) from error
        else:
            return torch.cat(parts), at_once
        # Outside the handler, whose traceback holds the tensors that did not fit.
        if device.type == "cuda":
            torch.cuda.empty_cache()
        at_once = max(1, at_once // 2)


def _finite(vectors: Tensor) -> Tensor:
    if not bool(torch.isfinite(vectors).all()):
        raise VisitFailed(
            RefusalCode.NOT_FINITE, "the model gives vectors that are not finite: train from another state"
        )
    return vectors


def _load(images: Sequence[Image]) -> NDArray[np.uint8]:
    return stack_greys([load_grey(image) for image in images])
