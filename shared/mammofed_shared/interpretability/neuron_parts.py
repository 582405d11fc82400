"""Why MIRAI w/ Mammo-FM gives an exam its risk: what each neuron of the sparse code adds, where, and in which words.

Source: Mammo-FM, Interpreting the risk using SAE. The explained number is the risk of one year, as the head gives it
for the features that the code gives back; its Shapley values sum to that risk minus the risk of an empty code.

Shapes: A active neurons, M coalitions, V views, h × w cells of the map, F features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammofed_shared.exam import Report
from mammofed_shared.interpretability.ablation import Reader, sentences_lost
from mammofed_shared.interpretability.exam_maps import ExamMaps, risks_of
from mammofed_shared.interpretability.heat_map import heat_map
from mammofed_shared.interpretability.sentence import SentenceDrop
from mammofed_shared.interpretability.shapley import shapley_values
from mammofed_shared.models.mirai import MiraiHead

_COALITIONS_AT_ONCE = 128
NUM_PERMUTATIONS = 100
NUM_NEURONS = 8
"""Neurons that are shown, drawn and asked for their sentence."""


@dataclass(frozen=True, slots=True)
class NeuronPart:
    """One neuron: its Shapley value in risk (0.01 is one percentage point), and what sentences lose without it, the
    largest drop first."""

    neuron: int
    contribution: float
    sentences: tuple[SentenceDrop, ...]


@dataclass(frozen=True, slots=True)
class NeuronExplanation:
    """The risk of one exam, taken apart.

    ``risks`` are those of the years 1 to 5 as the head gives them for the image itself, ``risks_of_code`` for what the
    code gives back of it; ``year`` is the explained one, and ``risk_of_empty`` its risk when no neuron fires.
    ``parts`` are the neurons with the largest contributions, the largest first; ``num_others`` more fire, and add
    ``others`` together. ``heat`` (V, h, w) is the heat map of the parts. ``raising`` are the neurons among them that
    raise the risk (all, where none does), and ``sentences`` what sentences lose without all of those; none where the
    exam has no report.
    """

    year: int
    risks: tuple[float, ...]
    risks_of_code: tuple[float, ...]
    risk_of_empty: float
    parts: tuple[NeuronPart, ...]
    num_others: int
    others: float
    heat: NDArray[np.float32]
    raising: tuple[int, ...]
    sentences: tuple[SentenceDrop, ...]


@torch.no_grad()
def explain_by_neurons(
    reader: Reader,
    head: MiraiHead,
    exam: ExamMaps,
    report: Report | None,
    *,
    year: int,
    num_neurons: int = NUM_NEURONS,
    permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
    report_progress: Callable[[int, int], None] = lambda done, total: None,
) -> NeuronExplanation:
    """Take the risk of one year apart, by the autoencoder's shortest code (k = 64 in the paper).

    Args:
        year: 1 to 5.
        permutations, seed: of the Shapley values' estimate; equal ones give equal values.
        report_progress: called with the number of coalitions that were asked for, and about how many will be.

    Raises:
        VisitFailed: NOT_FINITE, the text encoder gives no number.
    """
    maps = reader.code(exam.maps)
    coalitions = reader.coalitions(maps)
    neurons = coalitions.neurons_A.tolist()
    num_asked = 0

    def risk(on_MA: Tensor) -> Tensor:
        nonlocal num_asked
        pooled_MVF = coalitions.pooled(on_MA.to(reader.device))
        num_asked += len(on_MA)
        report_progress(num_asked, max(num_asked, permutations * len(neurons)))
        return risks_of(head, pooled_MVF, exam.views)[:, year - 1]

    found = shapley_values(risk, len(neurons), permutations=permutations, seed=seed, at_once=_COALITIONS_AT_ONCE)
    order = np.argsort(-np.abs(found.values), kind="stable")[:num_neurons].tolist()
    contributions = {neurons[place]: float(found.values[place]) for place in order}
    raising = [neuron for neuron, value in contributions.items() if value > 0] or list(contributions)
    told = sentences_lost(reader, coalitions, report, [*([neuron] for neuron in contributions), raising])
    image_features_1VF = reader.encoder.image_encoder.pool(exam.maps)[None]
    code_features_1VF = coalitions.pooled(coalitions.without([]))
    return NeuronExplanation(
        year=year,
        risks=tuple(risks_of(head, image_features_1VF, exam.views)[0].tolist()),
        risks_of_code=tuple(risks_of(head, code_features_1VF, exam.views)[0].tolist()),
        risk_of_empty=found.empty,
        parts=tuple(NeuronPart(*item, said) for item, said in zip(contributions.items(), told, strict=False)),
        num_others=len(neurons) - len(order),
        others=float(found.values.sum() - sum(contributions.values())),
        heat=heat_map(maps, contributions),
        raising=tuple(raising),
        sentences=told[-1],
    )
