"""What the task ``sae`` measures: how well codes give patches back, and whether findings survive reconstruction."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mammofed_shared.config.frozen_encoder import TEXT_FOLDER, read_encoder
from mammofed_shared.config.sparse_autoencoder import SaeSettings
from mammofed_shared.config.tasks import DATASETS
from mammofed_shared.data.patches import ImageSample, image_samples, patch_rows
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.evaluation.choice import fixed_choice
from mammofed_shared.evaluation.discrimination import Labelled
from mammofed_shared.evaluation.embed import embed_images, embed_texts, unmoved
from mammofed_shared.evaluation.fidelity import fidelity_numbers, original_and_reconstructed
from mammofed_shared.evaluation.frozen_encoder import load_frozen_dual_encoder
from mammofed_shared.evaluation.sparse_codes import CodeSums
from mammofed_shared.evaluation.zero_shot import Evaluation, ExamScore, labelled_scores, score_findings
from mammofed_shared.exam import Exam, Split
from mammofed_shared.losses.sparsity import sparsity_loss
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder
from mammofed_shared.report.tokenize import ReportTokenizer
from mammofed_shared.training.site_data import SiteData

Report = Callable[[int, int], None]
_IMAGES_AT_ONCE = 16


def evaluate(
    settings: SaeSettings, model: SparseAutoencoder, data: SiteData, device: torch.device, report: Report
) -> Evaluation:
    """Figures of the codes over patches of the test exams, and zero-shot AUROC of findings before and after
    reconstruction. The model is left as it came.

    The scores, which stay at the site, are those after reconstruction by the code of the first level.

    Args:
        report: called after each batch with the number of batches done and of all.

    Raises:
        VisitFailed: NO_DATA, where there is no test exam with an image; NOT_FINITE.
    """
    tested = [exam for exam in data.exams if exam.split is Split.TEST and exam.images]
    if not tested:
        raise VisitFailed(RefusalCode.NO_DATA, "evaluation needs exams with images in the split test, found none")
    with unmoved(model, device):
        numbers = {"num_exams": float(len(tested))} | _code_numbers(settings, model, data, tested, device, report)
        chosen = fixed_choice(tested, settings.fidelity.exams)
        if not chosen:
            return Evaluation(numbers, ())
        found, scores = _fidelity(settings, model, data, chosen, device, report)
    return Evaluation(numbers | found, scores)


def validate(settings: SaeSettings, model: SparseAutoencoder, data: SiteData, device: torch.device) -> dict[str, float]:
    """Figures of the codes over patches of validation exams, per data set: ``explained_variance/k64/d1`` and so on.

    Exams are a fixed choice of at most ``validation_exams``; empty where the site has none. The model is left as it
    came, and no random number of training is drawn.
    """
    told = dict(zip(data.datasets, DATASETS, strict=False))  # of further data sets nothing is told
    known = [e for e in data.exams if e.split is Split.VALIDATION and e.images and e.dataset in told]
    chosen = fixed_choice(known, settings.validation_exams)
    numbers: dict[str, float] = {}
    with unmoved(model, device):
        for dataset, number in told.items():
            own = [exam for exam in chosen if exam.dataset == dataset]
            found = _code_numbers(settings, model, data, own, device, lambda done, total: None)
            if found:
                found["num_exams"] = float(len(own))
            numbers |= {f"{word}/{number}": value for word, value in found.items()}
    return numbers


def _code_numbers(
    settings: SaeSettings,
    model: SparseAutoencoder,
    data: SiteData,
    exams: Sequence[Exam],
    device: torch.device,
    report: Report,
) -> dict[str, float]:
    """``loss`` and the figures of each level; empty where too few patients stand behind them."""
    if not exams or len({exam.patient for exam in exams}) < data.least_cell:
        return {}
    features, sums = data.features(settings.features, device), CodeSums(model)
    batches = _batches(image_samples(exams), settings.images_per_step)
    losses = []
    for done, samples in enumerate(batches, 1):
        rows = torch.from_numpy(patch_rows(features, samples)).to(device)
        losses.append(_losses(settings, sums.add(rows)))
        report(done, len(batches))
    loss = float(np.mean(np.concatenate(losses)))
    numbers = {"loss": loss} | sums.numbers(settings.level_names)
    if not np.isfinite(list(numbers.values())).all():
        raise VisitFailed(RefusalCode.NOT_FINITE, "the model gives losses that are not finite: take another state")
    return numbers


def _losses(settings: SaeSettings, figures: tuple[Tensor, Tensor, Tensor]) -> NDArray[np.float64]:
    rows_B = sparsity_loss(*figures, variant=settings.loss.variant, l1_weight=settings.loss.l1_weight)
    return rows_B.double().cpu().numpy()


def _batches(samples: Sequence[ImageSample], size: int) -> list[Sequence[ImageSample]]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def _fidelity(
    settings: SaeSettings,
    model: SparseAutoencoder,
    data: SiteData,
    exams: Sequence[Exam],
    device: torch.device,
    report: Report,
) -> tuple[dict[str, float], list[ExamScore]]:
    """Numbers of all findings at the shortest and the longest code, and the scores after the shortest."""
    levels = sorted({settings.levels[0], settings.levels[-1]})
    frozen = load_frozen_dual_encoder(data.encoder_folder).to(device)
    tokenizer = ReportTokenizer(
        data.encoder_folder / TEXT_FOLDER, read_encoder(data.encoder_folder).task.text_encoder.max_tokens
    )
    vectors = embed_images(
        original_and_reconstructed(frozen, model, levels),
        [image for exam in exams for image in exam.images],
        batch_size=_IMAGES_AT_ONCE,
        device=device,
        loaders=data.loaders,
        report=report,
    )

    def embed(texts: Sequence[str]) -> Tensor:
        return embed_texts(frozen, tokenizer, device, texts)

    variants = [score_findings(exams, part, settings.findings, embed) for part in vectors.chunk(1 + len(levels), dim=1)]
    original, *reconstructed = [labelled_scores(scores) for scores in variants]
    numbers: dict[str, float] = {}
    for finding in settings.findings:
        after = [(f"k{level}", own.get(finding, Labelled())) for level, own in zip(levels, reconstructed, strict=True)]
        numbers |= fidelity_numbers(finding, original.get(finding, Labelled()), after, data.least_cell)
    return numbers, variants[1]
