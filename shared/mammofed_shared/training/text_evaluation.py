"""What the task ``text`` measures: how well hidden tokens are found, and swapped sections noticed, in held-out reports.

What is hidden and swapped is the same in every evaluation of the same exams, so that numbers can be compared.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from mammofed_shared.config.tasks import DATASETS
from mammofed_shared.config.text_adaptation import TextSettings
from mammofed_shared.data.masked_reports import MaskedReports
from mammofed_shared.data.report_texts import ReportTexts
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.evaluation.choice import fixed_choice
from mammofed_shared.evaluation.embed import unmoved
from mammofed_shared.evaluation.zero_shot import Evaluation
from mammofed_shared.exam import Exam, Split
from mammofed_shared.models.text_adaptation import TextAdaptation
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.text import masked_report_reader

Report = Callable[[int, int], None]


def evaluate(
    settings: TextSettings, model: TextAdaptation, data: SiteData, device: torch.device, report: Report
) -> Evaluation:
    """Loss and accuracy over the test exams that have a text. The model is left as it came.

    Args:
        report: called after each batch with the number of batches done and of all.

    Raises:
        VisitFailed: NO_DATA, where there is no such exam; NOT_FINITE, the model gives a loss that is not finite.
    """
    texts = ReportTexts(data.exams, Split.TEST, settings.swapped_share)
    if not texts.samples:
        raise VisitFailed(RefusalCode.NO_DATA, "evaluation needs exams with a text in the split test, found none")
    with unmoved(model, device, settings.precision):
        found = _Answers()
        _ask(settings, model, data, texts, device, report, lambda exam: found)
    return Evaluation({"num_exams": float(len(texts.samples))} | found.numbers(data.least_cell), ())


def validate(settings: TextSettings, model: TextAdaptation, data: SiteData, device: torch.device) -> dict[str, float]:
    """The same over validation exams, per data set: ``mlm_loss/d1``, ``pair_accuracy/d2`` and so on.

    Exams are a fixed choice of at most ``validation_exams``; empty where the site has none. The model is left as it
    came, and no random number of training is drawn.
    """
    told = dict(zip(data.datasets, DATASETS, strict=False))  # of further data sets nothing is told
    known = [exam for exam in data.exams if exam.split is Split.VALIDATION and exam.report and exam.dataset in told]
    texts = ReportTexts(fixed_choice(known, settings.validation_exams), Split.VALIDATION, settings.swapped_share)
    found = {dataset: _Answers() for dataset in told}
    if texts.samples:
        with unmoved(model, device, settings.precision):
            _ask(settings, model, data, texts, device, lambda done, total: None, lambda exam: found[exam.dataset])
    numbers: dict[str, float] = {}
    for dataset, answers in found.items():
        own = answers.numbers(data.least_cell)
        if own:
            own["num_exams"] = float(answers.num_exams)
        numbers |= {f"{word}/{told[dataset]}": value for word, value in own.items()}
    return numbers


@dataclass(slots=True)
class _Answers:
    """Sums over tokens and over pairs, and whose they are."""

    num_exams: int = 0
    token_loss: float = 0.0
    num_tokens: int = 0
    num_tokens_right: int = 0
    pair_loss: float = 0.0
    num_pairs: int = 0
    num_pairs_right: int = 0
    patients: set[str] = field(default_factory=set)
    pair_patients: set[str] = field(default_factory=set)

    def numbers(self, least_cell: int) -> dict[str, float]:
        """Means of what at least so many patients stand behind."""
        numbers: dict[str, float] = {}
        if self.num_tokens and len(self.patients) >= least_cell:
            numbers["mlm_loss"] = self.token_loss / self.num_tokens
            numbers["mlm_accuracy"] = self.num_tokens_right / self.num_tokens
        if self.num_pairs and len(self.pair_patients) >= least_cell:
            numbers["pair_loss"] = self.pair_loss / self.num_pairs
            numbers["pair_accuracy"] = self.num_pairs_right / self.num_pairs
        return numbers


def _ask(
    settings: TextSettings,
    model: TextAdaptation,
    data: SiteData,
    texts: ReportTexts,
    device: torch.device,
    report: Report,
    answers_of: Callable[[Exam], _Answers],
) -> None:
    """Add the model's answers about each report to the sums that it belongs to."""
    reader = masked_report_reader(settings, data, texts)
    starts = range(0, len(texts.samples), settings.batch_size)
    for done, start in enumerate(starts, 1):
        exams = [sample.exam for sample in texts.samples[start : start + settings.batch_size]]
        indices = range(start, start + len(exams))
        batch = reader.batch(indices, [np.random.default_rng(_seed(exam)) for exam in exams])
        _add(model, batch, exams, device, answers_of)
        report(done, len(starts))


def _add(
    model: TextAdaptation,
    batch: MaskedReports,
    exams: Sequence[Exam],
    device: torch.device,
    answers_of: Callable[[Exam], _Answers],
) -> None:
    ids, mask, targets, pair = (
        torch.from_numpy(array).to(device) for array in (batch.ids, batch.mask, batch.targets, batch.pairs)
    )
    logits_NV, pair_logit_B = model.predictions(ids, mask, targets)
    wanted_N = targets[targets >= 0]
    losses = F.cross_entropy(logits_NV, wanted_N, reduction="none").cpu()
    right = (logits_NV.argmax(dim=1) == wanted_N).cpu()
    answer_B = pair.clamp(min=0).float()
    pair_losses = F.binary_cross_entropy_with_logits(pair_logit_B, answer_B, reduction="none").cpu()
    pair_right = ((pair_logit_B > 0) == (pair == 1)).cpu()
    if not bool(torch.isfinite(losses).all() and torch.isfinite(pair_losses).all()):
        raise VisitFailed(RefusalCode.NOT_FINITE, "the model gives losses that are not finite: take another state")
    stop = 0
    for row, (exam, count) in enumerate(zip(exams, (batch.targets >= 0).sum(axis=1).tolist(), strict=True)):
        start, stop = stop, stop + count
        answers = answers_of(exam)
        answers.num_exams += 1
        answers.patients.add(exam.patient)
        answers.token_loss += float(losses[start:stop].double().sum())
        answers.num_tokens += count
        answers.num_tokens_right += int(right[start:stop].sum())
        if batch.pairs[row] >= 0:
            answers.pair_patients.add(exam.patient)
            answers.pair_loss += float(pair_losses[row])
            answers.num_pairs += 1
            answers.num_pairs_right += int(pair_right[row])


def _seed(exam: Exam) -> int:
    """Of what is drawn for an exam whenever it is evaluated."""
    return int.from_bytes(hashlib.sha256(f"{exam.dataset}/{exam.exam}".encode()).digest()[:8], "big")
