"""Task by name: what ``visit.py`` needs of each task, so that it knows none of them.

The torch-free half of each task (settings, weight key, allowed numbers) is in ``config/tasks.py``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mammofed_shared.config.tasks import TaskSettings
from mammofed_shared.evaluation.zero_shot import Evaluation
from mammofed_shared.exam import Exam
from mammofed_shared.training import (
    pretrain,
    pretrain_evaluation,
    risk,
    risk_evaluation,
    risk_model,
    risk_scores,
    sparse_autoencoder,
    sparse_evaluation,
    text,
    text_evaluation,
)
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.step import Trainable

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class TaskCode:
    """The functions of one task.

    ``build_model(settings, text_encoder, pretrained)``, whose folder is None where the task trains no text encoder;
    ``bind(settings, model, data, group)`` joins it to a site's training data; ``evaluate(settings, model, data, device,
    report)`` scores the site's test exams; ``validate`` gives the numbers, per data set, that a visit tells of the
    model it received and of the one it sends. ``feature_exams(settings, exams)`` are those whose features a task that
    reads features may read.
    """

    build_model: Callable[[Any, Any, bool], nn.Module]
    bind: Callable[[Any, Any, SiteData, WorkerGroup], Trainable]
    evaluate: Callable[[Any, Any, SiteData, torch.device, Report], Evaluation]
    validate: Callable[[Any, Any, SiteData, torch.device], dict[str, float]]
    feature_exams: Callable[[Any, Sequence[Exam]], Sequence[Exam]] = lambda settings, exams: exams


def _evaluate(settings: Any, model: Any, data: SiteData, device: torch.device, report: Report) -> Evaluation:
    return pretrain_evaluation.evaluate(
        settings, model, data.text_encoder_folder, data.exams, device, data.loaders, report, data.least_cell
    )


def _validate(settings: Any, model: Any, data: SiteData, device: torch.device) -> dict[str, float]:
    return pretrain_evaluation.validate(
        settings,
        model,
        data.text_encoder_folder,
        data.exams,
        device,
        data.loaders,
        lambda done, total: None,
        datasets=data.datasets,
        least_cell=data.least_cell,
    )


_RISK = TaskCode(
    risk_model.build_model,
    risk.RiskTask,
    risk_evaluation.evaluate,
    risk_evaluation.validate,
    risk_scores.feature_exams,
)
TASK_CODE: Mapping[str, TaskCode] = {
    "pretrain": TaskCode(pretrain.build_model, pretrain.PretrainTask, _evaluate, _validate),
    "text": TaskCode(text.build_model, text.TextTask, text_evaluation.evaluate, text_evaluation.validate),
    "risk-mirai": _RISK,
    "risk-asymmirai": _RISK,
    "sae": TaskCode(
        sparse_autoencoder.build_model,
        sparse_autoencoder.SaeTask,
        sparse_evaluation.evaluate,
        sparse_evaluation.validate,
    ),
}


def code_of(settings: TaskSettings) -> TaskCode:
    """The code of a task."""
    return TASK_CODE[settings.name]
