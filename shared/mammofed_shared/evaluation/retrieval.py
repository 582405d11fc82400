"""Image–text retrieval: is a breast's own report among the nearest?

Shapes: Q breasts, U different texts, D dimensions of the shared space.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mammofed_shared.exam import Exam, Report

_BLOCK_VALUES = 2**21
"""Similarities that are held at once."""


def report_text(report: Report) -> str:
    """The whole report as one text."""
    return " ".join(filter(None, (report.findings, report.impression)))


def breast_vectors(exams: Sequence[Exam], images_ND: Tensor) -> tuple[Tensor, list[int]]:
    """The vector of each breast (Q, D): the direction of the mean of its images' unit vectors; and its exam's place.

    Args:
        images_ND: unit vectors of all images of all exams, in the order of the exams and of their images.
    """
    means: list[Tensor] = []
    owners: list[int] = []
    start = 0
    for place, exam in enumerate(exams):
        own_ND = images_ND[start : start + len(exam.images)]
        start += len(exam.images)
        sides = [image.laterality for image in exam.images]
        for side in sorted(set(sides)):
            means.append(own_ND[[index for index, own in enumerate(sides) if own is side]].mean(dim=0))
            owners.append(place)
    return F.normalize(torch.stack(means), dim=-1), owners


def own_text_ranks(breasts_QD: Tensor, texts_UD: Tensor, own_Q: Tensor, repeats_U: Tensor) -> Tensor:
    """Rank of each breast's own text among all exams' texts, 1 for the nearest, (Q,).

    An identical text of another exam is right as well. A wrong one that is as near as the own counts as nearer, so a
    model that gives all texts one vector finds nothing.

    Args:
        texts_UD: unit vectors of the different texts.
        own_Q: place of each breast's own text in them.
        repeats_U: number of exams that have each text.
    """
    ranks: list[Tensor] = []
    block = max(1, _BLOCK_VALUES // len(texts_UD))
    texts_DU = texts_UD.double().T
    for start in range(0, len(breasts_QD), block):
        own = own_Q[start : start + block]
        similarity = breasts_QD[start : start + block].double() @ texts_DU
        as_near = similarity >= similarity.gather(1, own[:, None])
        as_near.scatter_(1, own[:, None], value=False)
        ranks.append(1 + (as_near * repeats_U).sum(dim=1))
    return torch.cat(ranks)


def recalls(ranks_Q: Tensor, up_to: Sequence[int]) -> dict[str, float]:
    """``recall_at_<rank>``: share of breasts whose own text stands at that rank or before it."""
    return {f"recall_at_{rank}": float((ranks_Q <= rank).double().mean()) for rank in up_to}
