"""What the torch-free side knows of each task: its settings, its weight key and the numbers that may leave a site.

The mathematics of a task is in ``training/``; coordinator, link and egress only ever look in here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from mammofed_shared.config.base import Settings
from mammofed_shared.config.pretrain import PretrainSettings

TaskSettings: TypeAlias = PretrainSettings
"""Union of all task settings, told apart by ``name``; one member so far."""


@dataclass(frozen=True, slots=True)
class TaskDeclaration:
    """One task as seen without torch.

    ``weight_key`` is the metric by which FedAvg weighs updates. A metric name ending in ``/*`` allows one slug after
    the slash (``auroc/mass``); every other name is allowed exactly.
    """

    settings: type[Settings]
    weight_key: str
    train_metrics: frozenset[str]
    evaluate_metrics: frozenset[str]


TASKS: Mapping[str, TaskDeclaration] = {
    "pretrain": TaskDeclaration(
        settings=PretrainSettings,
        weight_key="num_exams",
        train_metrics=frozenset(
            {
                "num_exams",
                "num_samples",
                "num_steps",
                "loss",
                "loss_image_text",
                "loss_image_image",
                "loss_text_text",
                "temperature",
                "learning_rate",
                "grad_norm",
                "samples_per_s",
                "duration_s",
                "num_texts_cut",
                "moments_reset",
            }
        ),
        evaluate_metrics=frozenset(
            {"num_exams", "auroc/*", "num_positive/*", "num_labelled/*", "density_accuracy", "duration_s"}
        ),
    ),
}
