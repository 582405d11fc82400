"""Zero-shot scores: how near an image lies to the sentences that say that something is there.

Source: Mammo-FM, sections Diagnosing Mammographic Findings and Evaluation setup.
Shapes: N images, P prompts, D dimensions of the shared space.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from mammofed_shared.evaluation.discrimination import Labelled, discrimination_numbers, exam_score
from mammofed_shared.evaluation.histogram import score_histograms
from mammofed_shared.exam import Exam
from mammofed_shared.report.grammar import DENSITIES
from mammofed_shared.report.prompts import density_prompts, prompts_of


@dataclass(frozen=True, slots=True)
class ExamScore:
    """Score of one exam for one finding, and whether the finding is there; None where nobody recorded it."""

    exam: Exam
    finding: str
    label: bool | None
    score: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Numbers that may leave the site, and scores of single exams, which stay."""

    numbers: dict[str, float]
    scores: Sequence[ExamScore]


def prompt_direction(prompts: Sequence[str], embed_texts: Callable[[Sequence[str]], Tensor]) -> Tensor:
    """Unit vector (D,): each prompt encoded alone, embeddings averaged.

    Args:
        embed_texts: texts → unit vectors (P, D).
    """
    return F.normalize(embed_texts(prompts).mean(dim=0), dim=-1)


def score_findings(
    exams: Sequence[Exam],
    images_ND: Tensor,
    findings: Sequence[str],
    embed_texts: Callable[[Sequence[str]], Tensor],
) -> list[ExamScore]:
    """Scores of all exams for all findings.

    An image's score is the cosine similarity, -1..1, of its vector and the finding's direction; a breast's and an
    exam's score is the maximum of those.

    Args:
        exams: each with at least one image.
        images_ND: unit vectors of all images of all exams, in the order of the exams and of their images.
    """
    scores: list[ExamScore] = []
    for finding in findings:
        # In float64, so that the order of a sum cannot move a rank.
        similarity_N = images_ND.double() @ prompt_direction(prompts_of(finding), embed_texts).double()
        start = 0
        for exam in exams:
            values = similarity_N[start : start + len(exam.images)].tolist()
            start += len(exam.images)
            sides = [image.laterality for image in exam.images]
            score = exam_score(zip(sides, values, strict=True))
            scores.append(ExamScore(exam, finding, exam.labels.get(finding), score))
    return scores


def labelled_scores(scores: Sequence[ExamScore]) -> dict[str, Labelled]:
    """Finding → its exams whose label is known; a finding without any is absent."""
    known: dict[str, Labelled] = {}
    for score in scores:
        if score.label is not None:
            known.setdefault(score.finding, Labelled()).add(score.label, score.score, score.exam.patient)
    return known


def finding_numbers(scores: Sequence[ExamScore], findings: Sequence[str], least_cell: int) -> dict[str, float]:
    """The numbers of all findings that may leave the site (docs/evaluation.md).

    ``auroc/<finding>``, ``auroc_low/…``, ``auroc_high/…``, ``num_positive/…``, ``num_labelled/…`` and the histograms of
    ``protocol/histogram.py``; of a finding with fewer than ``least_cell`` patients behind its positives or its
    negatives nothing but ``suppressed/<finding>``.
    """
    known = labelled_scores(scores)
    numbers: dict[str, float] = {}
    for finding in findings:
        labelled = known.get(finding, Labelled())
        told = discrimination_numbers(labelled, least_cell)
        if told:
            numbers |= {f"{word}/{finding}": value for word, value in told.items()}
            numbers |= score_histograms(finding, labelled, least_cell)
        else:
            numbers[f"suppressed/{finding}"] = 1.0
    return numbers


def density_accuracy(
    exams: Sequence[Exam],
    images_ND: Tensor,
    embed_texts: Callable[[Sequence[str]], Tensor],
    least_cell: int,
) -> float | None:
    """Share of exams whose nearest density sentence is the right one of A–D.

    An exam's similarity to a sentence is the mean over its images: density belongs to the whole exam. None where
    density is known of fewer than ``least_cell`` patients.
    """
    directions = [prompt_direction(density_prompts(density), embed_texts) for density in DENSITIES]
    patients: list[str] = []
    right = start = 0
    for exam in exams:
        vectors_ND = images_ND[start : start + len(exam.images)].double()
        start += len(exam.images)
        if exam.density is not None:
            similarity = [float((vectors_ND @ direction.double()).mean()) for direction in directions]
            patients.append(exam.patient)
            right += list(DENSITIES)[similarity.index(max(similarity))] == exam.density
    return right / len(patients) if patients and len(set(patients)) >= least_cell else None
