"""Images and texts of a site in the shared space, for evaluation. Call it without gradients and in evaluation mode."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammofed_shared.data.batches import loaded_ahead
from mammofed_shared.data.image_text import load_grey, stack_greys
from mammofed_shared.exam import Image
from mammofed_shared.models.dual_encoder import DualEncoder
from mammofed_shared.report.tokenize import ReportTokenizer


def embed_images(
    model: DualEncoder,
    images: Sequence[Image],
    *,
    batch_size: int,
    device: torch.device,
    loaders: int,
    report: Callable[[int, int], None],
) -> Tensor:
    """Unit vectors of all images in their order, (images, dimensions) float32 on the CPU.

    Args:
        report: called after each batch with the number of batches done and of all.
    """
    starts = range(0, len(images), batch_size)
    loading = [partial(_load, images[start : start + batch_size]) for start in starts]
    embedded: list[Tensor] = []
    for batch in loaded_ahead(loading, loaders):
        embedded.append(model.embed_images(torch.from_numpy(batch).to(device)).cpu())
        report(len(embedded), len(starts))
    return torch.cat(embedded)


def embed_texts(model: DualEncoder, tokenizer: ReportTokenizer, device: torch.device, texts: Sequence[str]) -> Tensor:
    """Unit vectors of texts, (texts, dimensions) float32 on the CPU."""
    tokens = tokenizer(texts)
    ids, mask = torch.from_numpy(tokens.ids).to(device), torch.from_numpy(tokens.mask).to(device)
    return model.embed_texts(ids, mask).cpu()


def _load(images: Sequence[Image]) -> NDArray[np.uint8]:
    return stack_greys([load_grey(image) for image in images])
