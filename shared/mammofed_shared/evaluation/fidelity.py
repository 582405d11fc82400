"""What findings a frozen model still tells apart when its maps are replaced by a sparse autoencoder's reconstructions.

Source: Mammo-FM, Interpretable Breast Cancer Risk Prediction: SAE-reconstructed representations are compared with the
original ones (Fig. 3h). Here each cell of an image's map is reconstructed, the map is pooled as the encoder pools, and
the exam is scored zero-shot as ``zero_shot.py`` does.

Shapes: B images, H rows, W columns of an image; C channels, h rows, w columns of the map; V variants: the original and
one for each level; D dimensions of the shared space.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mammofed_shared.evaluation.discrimination import Labelled, discrimination_numbers
from mammofed_shared.evaluation.statistics import Values, areas, estimated, ranking
from mammofed_shared.models.dual_encoder import DualEncoder
from mammofed_shared.models.nested_codes import keep_largest
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder


def reconstructed_maps(model: SparseAutoencoder, map_Chw: Tensor, levels: Sequence[int]) -> list[Tensor]:
    """One image's map as the code of each level gives it back, (C, h, w) each."""
    cells_PC = map_Chw.flatten(1).T
    code_PN, dictionary_NC = model.encode(cells_PC), model.dictionary.detach()
    given = [keep_largest(code_PN, level) @ dictionary_NC + model.pre_bias.detach() for level in levels]
    return [cells.T.reshape(map_Chw.shape) for cells in given]


def original_and_reconstructed(
    frozen: DualEncoder, model: SparseAutoencoder, levels: Sequence[int]
) -> Callable[[Tensor], Tensor]:
    """Images (B, H, W) → unit vectors (B, V · D): the original's, then those of each level."""
    encoder = frozen.image_encoder

    def embed(grey_BHW: Tensor) -> Tensor:
        maps_BChw = encoder.feature_map(grey_BHW)
        # One image after the other: at full resolution the codes of one take 90 MB.
        by_image = [reconstructed_maps(model, map_Chw.float(), levels) for map_Chw in maps_BChw]
        variants = [maps_BChw, *(torch.stack(given) for given in zip(*by_image, strict=True))]
        return torch.cat([_unit(frozen, encoder.pool(maps)) for maps in variants], dim=1)

    return embed


def _unit(frozen: DualEncoder, pooled_BF: Tensor) -> Tensor:
    projected: Tensor = frozen.image_projection(pooled_BF)
    return F.normalize(projected.float(), dim=-1)


def fidelity_numbers(
    finding: str, original: Labelled, reconstructed: Sequence[tuple[str, Labelled]], least_cell: int
) -> dict[str, float]:
    """The numbers of one finding that may leave the site.

    AUROC of the original with its interval and counts, and ``auroc_change/<finding>/<level>`` with its interval, how
    much larger the AUROC is after reconstruction; of too few patients nothing but ``suppressed/<finding>``.

    Args:
        reconstructed: by the level's name, of the same exams in the same order.
    """
    told = discrimination_numbers(original, least_cell)
    if "auroc" not in told:
        return {f"suppressed/{finding}": 1.0}
    numbers = {f"{word}/{finding}": value for word, value in told.items()}
    for name, labelled in reconstructed:
        change = estimated("auroc_change", original.patients, _auroc_change(original, labelled))
        numbers |= {f"{word}/{finding}/{name}": value for word, value in change.items()}
    return numbers


def _auroc_change(before: Labelled, after: Labelled) -> Callable[[Values], Values]:
    """How much larger the AUROC of ``after`` is than that of ``before``, as a figure for ``statistics.bootstrap``:
    each resample draws the same patients for both, so what both find hard does not widen the interval."""
    label_N = np.asarray(before.labels, bool)
    rankings = [ranking(one.scores) for one in (before, after)]

    def figure(weight_RN: Values) -> Values:
        was_R, is_R = (areas(weight_RN[:, order], label_N[order], starts) for order, starts in rankings)
        return is_R - was_R

    return figure
