"""Which sentence of the report a neuron stands for: the one whose similarity to the image drops most without it.

Source: Mammo-FM, Text-Level Interpretability: cosine similarities between the image's features, reconstructed from
the code, and every sentence; again with the neuron at 0; the sentence with the largest drop. Here the similarity of an
exam is the mean over its views. As in the paper's Fig. 16, a sentence's share is its drop over the sum of all drops.

Shapes: V views, D dimensions of the shared space, S sentences.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from mammofed_shared.exam import Report
from mammofed_shared.report.grammar import FINDINGS
from mammofed_shared.report.sentences import sentences_in

_DENIAL = re.compile(r"\b(?:no|not|none|nor|neither|never|without|absen(?:t|ce)|negative|free)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SentenceDrop:
    """How much of a sentence's similarity goes, -2..2, and its share of all that goes, 0..1."""

    sentence: str
    drop: float
    share: float


def report_sentences(report: Report | None) -> list[str]:
    """The different sentences of a report, findings first; none without a report."""
    if report is None:
        return []
    found = [sentence for section in (report.findings, report.impression) for sentence in sentences_in(section)]
    return list(dict.fromkeys(sentence for sentence in found if sentence))


def sentence_drops(
    image_VD: Tensor, ablated_VD: Tensor, sentences: Sequence[str], text_SD: Tensor
) -> list[SentenceDrop]:
    """What each sentence loses, the largest drop first; equal ones in the order of the report.

    Args:
        image_VD, ablated_VD: unit vectors of the images, with all neurons and without those in question.
        text_SD: unit vectors of the sentences.
    """
    difference_VD = image_VD.double() - ablated_VD.double()
    drop_S = (difference_VD.mean(dim=0) @ text_SD.double().T).tolist()
    total = sum(drop for drop in drop_S if drop > 0)
    drops = [
        SentenceDrop(sentence, drop, drop / total if drop > 0 else 0.0)
        for sentence, drop in zip(sentences, drop_S, strict=True)
    ]
    return sorted(drops, key=lambda item: -item.drop)


def chosen(drops: Sequence[SentenceDrop]) -> SentenceDrop | None:
    """The sentence that stands for the neuron; None where no similarity drops."""
    return drops[0] if drops and drops[0].drop > 0 else None


def names_finding(sentence: str, finding: str) -> bool:
    """Whether a sentence says that a finding of the grammar is there; one that denies anything does not.

    What the demo counts as a hit: a sentence that is right by its meaning in other words is a miss.
    """
    noun = FINDINGS[finding]
    words = "|".join(map(re.escape, (noun.singular, noun.plural)))
    return bool(re.search(rf"\b(?:{words})\b", sentence, re.IGNORECASE)) and not _DENIAL.search(sentence)


def chance_of_naming(sentences: Sequence[str], finding: str) -> float:
    """How often a sentence drawn from the report names the finding; 0 without sentences."""
    return sum(names_finding(sentence, finding) for sentence in sentences) / len(sentences) if sentences else 0.0
