"""What the risk tasks measure: risks of test exams against what is known of them, and the validation of each visit.

Shapes: N exams, T years.
"""

import torch

from mammofed_shared.config.tasks import DATASETS
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.evaluation.choice import fixed_choice
from mammofed_shared.evaluation.risk import evaluate_risk, validation_numbers
from mammofed_shared.evaluation.zero_shot import Evaluation
from mammofed_shared.exam import Split
from mammofed_shared.training.risk_model import RiskModel
from mammofed_shared.training.risk_scores import AnyRiskSettings, Report, score_exams, scored_exams
from mammofed_shared.training.site_data import SiteData


def evaluate(
    settings: AnyRiskSettings, model: RiskModel, data: SiteData, device: torch.device, report: Report
) -> Evaluation:
    """Risks of the test exams and how well they tell. The model is left as it came.

    Args:
        report: called after each batch with the number of batches done and of all.

    Raises:
        VisitFailed: NO_DATA, where there is no such exam; NOT_FINITE, as ``score_exams``.
    """
    exams = scored_exams(settings, data.exams, Split.TEST)
    if not exams:
        raise VisitFailed(
            RefusalCode.NO_DATA,
            "evaluation needs exams of the split test with views and an outcome, a label or a teacher's risks, found "
            "none",
        )
    risks_NT = score_exams(settings, model, data, exams, device, report)
    return evaluate_risk(exams, risks_NT, data.least_cell)


def validate(settings: AnyRiskSettings, model: RiskModel, data: SiteData, device: torch.device) -> dict[str, float]:
    """AUROC of each year over validation exams, per data set: ``auroc/year1/d1`` and so on.

    Exams are a fixed choice of at most ``validation_exams``; empty where the site has none. The model is left as it
    came, and no random number of training is drawn.
    """
    told = dict(zip(data.datasets, DATASETS, strict=False))  # of further data sets nothing is told
    known = [exam for exam in scored_exams(settings, data.exams, Split.VALIDATION) if exam.dataset in told]
    chosen = fixed_choice(known, settings.validation_exams)
    if not chosen:
        return {}
    risks_NT = score_exams(settings, model, data, chosen, device)
    numbers: dict[str, float] = {}
    for dataset, number in told.items():
        own = [index for index, exam in enumerate(chosen) if exam.dataset == dataset]
        found = validation_numbers([chosen[index] for index in own], risks_NT[own], data.least_cell)
        numbers |= {f"{name}/{number}": value for name, value in found.items()}
    return numbers
