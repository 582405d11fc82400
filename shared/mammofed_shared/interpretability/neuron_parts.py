"""Why MIRAI w/ Mammo-FM gives an exam its risk: what each neuron of the sparse code adds, where, and in which words.

Source: Mammo-FM, Interpreting the risk using SAE. The explained number is the risk of one year, as the head gives it
for the features that the code gives back; its Shapley values sum to that risk minus the risk of an empty code.

Shapes: A active neurons, M coalitions, V views, C channels, h × w cells of the map, F features, S sentences, D
dimensions of the shared space.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammofed_shared.evaluation.embed import embed_texts
from mammofed_shared.exam import Report
from mammofed_shared.interpretability.coalition import Coalitions
from mammofed_shared.interpretability.exam_maps import ExamMaps, risks_of
from mammofed_shared.interpretability.heat_map import heat_map
from mammofed_shared.interpretability.sentence import SentenceDrop, report_sentences, sentence_drops
from mammofed_shared.interpretability.shapley import shapley_values
from mammofed_shared.interpretability.sparse_maps import sparse_maps
from mammofed_shared.models.dual_encoder import DualEncoder
from mammofed_shared.models.mirai import MiraiHead
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder
from mammofed_shared.report.tokenize import ReportTokenizer

_COALITIONS_AT_ONCE = 128
NUM_PERMUTATIONS = 100
NUM_NEURONS = 8
"""Neurons that are shown, drawn and asked for their sentence."""


@dataclass(frozen=True, slots=True)
class Reader:
    """What reads an exam: models in evaluation mode, on one device."""

    encoder: DualEncoder
    tokenizer: ReportTokenizer
    autoencoder: SparseAutoencoder
    head: MiraiHead
    device: torch.device


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
    exam: ExamMaps,
    report: Report | None,
    *,
    year: int,
    num_neurons: int = NUM_NEURONS,
    permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> NeuronExplanation:
    """Take the risk of one year apart, by the autoencoder's shortest code (k = 64 in the paper).

    Args:
        year: 1 to 5.
        permutations, seed: of the Shapley values' estimate; equal ones give equal values.

    Raises:
        VisitFailed: NOT_FINITE, the text encoder gives no number.
    """
    maps = sparse_maps(reader.autoencoder, exam.maps, reader.autoencoder.levels[0])
    coalitions = Coalitions(maps, reader.autoencoder, reader.encoder.image_encoder.pooling)
    neurons = coalitions.neurons_A.tolist()

    def risk(on_MA: Tensor) -> Tensor:
        on_MA = on_MA.to(reader.device)
        parts = range(0, len(on_MA), _COALITIONS_AT_ONCE)
        pooled = (coalitions.pooled(on_MA[start : start + _COALITIONS_AT_ONCE]) for start in parts)
        return torch.cat([risks_of(reader.head, features_MVF, exam.views)[:, year - 1] for features_MVF in pooled])

    found = shapley_values(risk, len(neurons), permutations=permutations, seed=seed)
    order = np.argsort(-np.abs(found.values), kind="stable")[:num_neurons].tolist()
    contributions = {neurons[place]: float(found.values[place]) for place in order}
    raising = [neuron for neuron, value in contributions.items() if value > 0] or list(contributions)
    told = _sentences(reader, coalitions, report, [*([neuron] for neuron in contributions), raising])
    image_features_1VF = reader.encoder.image_encoder.pool(exam.maps)[None]
    code_features_1VF = coalitions.pooled(coalitions.without([]))
    return NeuronExplanation(
        year=year,
        risks=tuple(risks_of(reader.head, image_features_1VF, exam.views)[0].tolist()),
        risks_of_code=tuple(risks_of(reader.head, code_features_1VF, exam.views)[0].tolist()),
        risk_of_empty=found.empty,
        parts=tuple(NeuronPart(*item, said) for item, said in zip(contributions.items(), told, strict=False)),
        num_others=len(neurons) - len(order),
        others=float(found.values.sum() - sum(contributions.values())),
        heat=heat_map(maps, contributions),
        raising=tuple(raising),
        sentences=told[-1],
    )


def _sentences(
    reader: Reader, coalitions: Coalitions, report: Report | None, off: Sequence[list[int]]
) -> list[tuple[SentenceDrop, ...]]:
    """What the sentences of the report lose without each of these groups of neurons."""
    sentences = report_sentences(report)
    if not sentences:
        return [()] * len(off)
    text_SD = embed_texts(reader.encoder, reader.tokenizer, reader.device, sentences)
    on_MA = torch.cat([coalitions.without(neurons) for neurons in ([], *off)])
    image_MVD = reader.encoder.project_images(coalitions.pooled(on_MA)).cpu()
    return [tuple(sentence_drops(image_MVD[0], ablated_VD, sentences, text_SD)) for ablated_VD in image_MVD[1:]]
