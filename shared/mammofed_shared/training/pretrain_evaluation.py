"""What the task ``pretrain`` measures: zero-shot scores and a probe of test exams, and the validation of each visit."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.config.tasks import DATASETS, RECALLS
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.evaluation.choice import fixed_choice
from mammofed_shared.evaluation.discrimination import auroc_numbers, discrimination_numbers
from mammofed_shared.evaluation.embed import embed_images, embed_texts, unmoved
from mammofed_shared.evaluation.probe import probe_scores
from mammofed_shared.evaluation.retrieval import breast_vectors, own_text_ranks, recalls, report_text
from mammofed_shared.evaluation.zero_shot import (
    Evaluation,
    ExamScore,
    density_accuracy,
    finding_numbers,
    labelled_scores,
    score_findings,
)
from mammofed_shared.exam import Exam, Split
from mammofed_shared.models.dual_encoder import DualEncoder
from mammofed_shared.report.tokenize import ReportTokenizer

Report = Callable[[int, int], None]
TextEmbedding = Callable[[Sequence[str]], Tensor]


def evaluate(
    settings: PretrainSettings,
    model: DualEncoder,
    text_encoder: Path,
    exams: Sequence[Exam],
    device: torch.device,
    loaders: int,
    report: Report,
    least_cell: int,
) -> Evaluation:
    """Zero-shot scores of the test exams that have images, and a linear probe's AUROC where the settings ask for one.

    The model is left as it came, in its mode, with every tensor the same.

    Args:
        report: called after each batch with the number of batches done and of all.
        least_cell: the site's; numbers of fewer patients are not among those that may leave.

    Raises:
        VisitFailed: NO_DATA, where there is no such exam.
    """
    tested = _with_images(exams, Split.TEST)
    if not tested:
        raise VisitFailed(RefusalCode.NO_DATA, "evaluation needs exams with images in the split test, found none")
    embed = _Embedding(settings, model, text_encoder, device, loaders, report)
    with unmoved(model, device, settings.precision):
        images_ND, texts = embed.images(model.embed_images, tested), embed.of_texts()
        scores = score_findings(tested, images_ND, settings.findings, texts)
        density = density_accuracy(tested, images_ND, texts, least_cell)
        numbers = {"num_exams": float(len(tested))} | finding_numbers(scores, settings.findings, least_cell)
        if density is not None:
            numbers["density_accuracy"] = density
        trained = fixed_choice(_with_images(exams, Split.TRAIN), settings.measure.probe_exams)
        told = [finding for finding in settings.findings if f"suppressed/{finding}" not in numbers]
        if trained and told:
            numbers |= _probe_numbers(told, model, embed, trained, tested)
    return Evaluation(numbers, scores)


def validate(
    settings: PretrainSettings,
    model: DualEncoder,
    text_encoder: Path,
    exams: Sequence[Exam],
    device: torch.device,
    loaders: int,
    report: Report,
    *,
    datasets: Sequence[str],
    least_cell: int,
) -> dict[str, float]:
    """Retrieval and zero-shot AUROC of validation exams, per data set: ``recall_at_1/d1``, ``auroc/mass/d1`` and so on.

    Exams are a fixed choice of at most ``measure.validation_exams``; empty where the site has none. The model is left
    as it came, and no random number is drawn.

    Args:
        datasets: names of the site's data sets in the order of its YAML; outside the site they are d1, d2, ….
        report, least_cell: as in ``evaluate``.
    """
    known = [exam for exam in _with_images(exams, Split.VALIDATION) if exam.dataset in datasets[: len(DATASETS)]]
    chosen = fixed_choice(known, settings.measure.validation_exams)
    if not chosen:
        return {}
    embed = _Embedding(settings, model, text_encoder, device, loaders, report)
    with unmoved(model, device, settings.precision):
        images_ND, texts = embed.images(model.embed_images, chosen), embed.of_texts()
        scores = score_findings(chosen, images_ND, settings.findings, texts)
        numbers: dict[str, float] = {}
        # More names than numbers would only be data sets of which nothing was taken above.
        for name, number in zip(datasets, DATASETS, strict=False):
            own = [exam.dataset == name for exam in chosen]
            own_exams = [exam for exam, is_own in zip(chosen, own, strict=True) if is_own]
            of_image = [is_own for exam, is_own in zip(chosen, own, strict=True) for _ in exam.images]
            own_scores = [score for score in scores if score.exam.dataset == name]
            found = _retrieval_numbers(own_exams, images_ND[torch.tensor(of_image)], texts, least_cell)
            found |= _finding_numbers(own_scores, least_cell)
            numbers |= {f"{word}/{number}": value for word, value in found.items()}
    return numbers


@dataclass(frozen=True, slots=True)
class _Embedding:
    """How the images and texts of one site become vectors."""

    settings: PretrainSettings
    model: DualEncoder
    text_encoder: Path
    device: torch.device
    loaders: int
    report: Report

    def images(self, encode: Callable[[Tensor], Tensor], exams: Sequence[Exam]) -> Tensor:
        """Vectors of all images of the exams, in their order."""
        return embed_images(
            encode,
            [image for exam in exams for image in exam.images],
            batch_size=self.settings.measure.images_at_once,
            device=self.device,
            loaders=self.loaders,
            report=self.report,
        )

    def of_texts(self) -> TextEmbedding:
        """What turns texts into unit vectors."""
        tokenizer = ReportTokenizer(self.text_encoder, self.settings.text_encoder.max_tokens)
        return partial(embed_texts, self.model, tokenizer, self.device)


def _with_images(exams: Sequence[Exam], split: Split) -> list[Exam]:
    return [exam for exam in exams if exam.split is split and exam.images]


def _probe_numbers(
    findings: Sequence[str], model: DualEncoder, embed: _Embedding, trained: Sequence[Exam], tested: Sequence[Exam]
) -> dict[str, float]:
    """``probe_auroc/<finding>`` and its interval; the features are those before the projection."""
    trained_NF = embed.images(model.image_encoder, trained).numpy()
    tested_NF = embed.images(model.image_encoder, tested).numpy()
    numbers: dict[str, float] = {}
    for finding in findings:
        labelled = probe_scores(finding, trained, trained_NF, tested, tested_NF)
        told = auroc_numbers(labelled) if labelled is not None else {}
        numbers |= {f"probe_{word}/{finding}": value for word, value in told.items()}
    return numbers


def _retrieval_numbers(
    exams: Sequence[Exam], images_ND: Tensor, embed_texts: TextEmbedding, least_cell: int
) -> dict[str, float]:
    """``recall_at_…``, ``num_exams`` and ``num_texts`` (different ones) over the exams that have a report."""
    texts = [report_text(exam.report) if exam.report else "" for exam in exams]
    has_text = [bool(text) for text in texts]
    of_image = [known for exam, known in zip(exams, has_text, strict=True) for _ in exam.images]
    reported = [exam for exam, known in zip(exams, has_text, strict=True) if known]
    if not reported or len({exam.patient for exam in reported}) < least_cell:
        return {}
    repeats = Counter(filter(None, texts))
    place = {text: index for index, text in enumerate(repeats)}
    breasts_QD, owners = breast_vectors(reported, images_ND[torch.tensor(of_image)])
    own = [place[text] for text in filter(None, texts)]
    ranks = own_text_ranks(
        breasts_QD,
        embed_texts(list(repeats)),
        torch.tensor([own[exam] for exam in owners]),
        torch.tensor(list(repeats.values())),
    )
    counts = {"num_exams": float(len(reported)), "num_texts": float(len(repeats))}
    return recalls(ranks, RECALLS) | counts


def _finding_numbers(scores: Sequence[ExamScore], least_cell: int) -> dict[str, float]:
    """The numbers of each finding that may be told, by ``<word>/<finding>``."""
    return {
        f"{word}/{finding}": value
        for finding, labelled in labelled_scores(scores).items()
        for word, value in discrimination_numbers(labelled, least_cell).items()
    }
