"""Risks of exams by a head: what validation, evaluation and explanation share.

Shapes: N exams, T years.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from mammofed_shared.config.risk import RiskAsymmiraiSettings, RiskMiraiSettings
from mammofed_shared.data.batches import loaded_ahead
from mammofed_shared.data.risk import NUM_YEARS, censored_labels, exam_slots, is_readable, read_slots
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.evaluation.embed import unmoved
from mammofed_shared.evaluation.risk import CANCER
from mammofed_shared.exam import Exam, Split
from mammofed_shared.training.risk import training_samples
from mammofed_shared.training.risk_model import RiskModel
from mammofed_shared.training.site_data import SiteData

Report = Callable[[int, int], None]
AnyRiskSettings = RiskMiraiSettings | RiskAsymmiraiSettings


def readable_exams(settings: AnyRiskSettings, exams: Sequence[Exam]) -> list[Exam]:
    """Those with the views that the head needs, in their order."""
    kind = settings.features
    return [exam for exam in exams if is_readable(exam_slots(kind, exam), settings.missing_views)]


def scored_exams(settings: AnyRiskSettings, exams: Sequence[Exam], split: Split) -> list[Exam]:
    """The readable exams of a split whose risk can be compared with anything: an outcome, a label, the teacher."""
    return [
        exam
        for exam in readable_exams(settings, [exam for exam in exams if exam.split is split])
        if exam.teacher is not None or CANCER in exam.labels or censored_labels(exam)[1].any()
    ]


def feature_exams(settings: AnyRiskSettings, exams: Sequence[Exam]) -> list[Exam]:
    """All exams that a visit may read: those to learn from, and those that are scored."""
    trained = [sample.exam for sample in training_samples(settings, exams).samples]
    return [
        *trained,
        *(exam for split in (Split.VALIDATION, Split.TEST) for exam in scored_exams(settings, exams, split)),
    ]


def score_exams(
    settings: AnyRiskSettings,
    model: RiskModel,
    data: SiteData,
    exams: Sequence[Exam],
    device: torch.device,
    report: Report = lambda done, total: None,
) -> NDArray[np.float64]:
    """Risks (N, T) of exams within 1 to 5 years, in 0..1. The model is left as it came.

    Args:
        exams: ``readable_exams``.
        report: called after each batch with the number of batches done and of all.

    Raises:
        DataError: an exam's features were not computed.
        VisitFailed: NOT_FINITE, the model gives a risk that is not finite.
    """
    features = data.features(settings.features, device)
    starts = range(0, len(exams), settings.batch_size)
    slots = [exam_slots(settings.features, exam) for exam in exams]
    loading = [partial(read_slots, features, slots[start : start + settings.batch_size]) for start in starts]
    risks_NT = np.zeros((len(exams), NUM_YEARS))
    with unmoved(model, device, settings.precision):
        for done, (start, arrays) in enumerate(zip(starts, loaded_ahead(loading, data.loaders), strict=True), 1):
            logit_BT = model.logits(*(torch.from_numpy(array).to(device) for array in arrays))
            risks_NT[start : start + len(logit_BT)] = logit_BT.double().sigmoid().cpu().numpy()
            report(done, len(starts))
    if not np.isfinite(risks_NT).all():
        raise VisitFailed(RefusalCode.NOT_FINITE, "the model gives risks that are not finite: take another state")
    return risks_NT
