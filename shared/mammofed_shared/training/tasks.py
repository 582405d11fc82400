"""Task by name: what ``visit.py`` needs of each task, so that it knows none of them.

The torch-free half of each task (settings, weight key, allowed numbers) is in ``config/tasks.py``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from mammofed_shared.config.tasks import TaskSettings
from mammofed_shared.evaluation.zero_shot import Evaluation
from mammofed_shared.exam import Exam
from mammofed_shared.training import pretrain
from mammofed_shared.training.step import Trainable


class SiteTask(Trainable, Protocol):
    """A task with the training data of one site."""

    def numbers(self) -> dict[str, float]:
        """Numbers of the task after training, of ``train_metrics``."""


@dataclass(frozen=True, slots=True)
class TaskCode:
    """The functions of one task.

    ``build_model(settings, text_encoder, pretrained)``; ``bind(settings, model, text_encoder, exams, device,
    loaders)`` joins it to a site's training data; ``evaluate(…, report)`` scores the site's test exams.
    """

    build_model: Callable[[Any, Path, bool], nn.Module]
    bind: Callable[[Any, Any, Path, Sequence[Exam], torch.device, int], SiteTask]
    evaluate: Callable[[Any, Any, Path, Sequence[Exam], torch.device, int, Callable[[int, int], None]], Evaluation]


TASK_CODE: Mapping[str, TaskCode] = {
    "pretrain": TaskCode(pretrain.build_model, pretrain.PretrainTask, pretrain.evaluate),
}


def code_of(settings: TaskSettings) -> TaskCode:
    """The code of a task."""
    return TASK_CODE[settings.name]
