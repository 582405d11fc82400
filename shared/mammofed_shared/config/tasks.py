"""What the torch-free side knows of each task: its settings, its weight key and the numbers that may leave a site.

The mathematics of a task is in ``training/``; coordinator, link and egress only ever look in here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from mammofed_shared.config.base import Settings
from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.config.risk import RiskAsymmiraiSettings, RiskMiraiSettings, RiskSettings
from mammofed_shared.config.risk_metrics import RISK_CORRELATIONS, RISK_EVALUATION, RISK_SHARES, RISK_VALIDATION
from mammofed_shared.config.sparse_autoencoder import SaeSettings
from mammofed_shared.config.text_adaptation import TextSettings

TaskSettings: TypeAlias = Annotated[
    PretrainSettings | TextSettings | RiskMiraiSettings | RiskAsymmiraiSettings | SaeSettings,
    Field(discriminator="name"),
]
"""Union of all task settings, told apart by ``name``."""

Model = Literal["text_encoder", "encoder"]
"""What a run and its sites name by a key of their YAML and bring as files: a text encoder, a frozen model."""

RECALLS = (1, 5, 10)
"""Ranks up to which image–text retrieval counts a hit."""
DATASETS = tuple(f"d{number}" for number in range(1, 17))
"""What a site's data sets are called outside it, in the order of its YAML: their names are the hospital's own words.
Of data sets beyond the last, nothing is told apart."""


@dataclass(frozen=True, slots=True)
class TaskDeclaration:
    """One task as seen without torch.

    ``needs`` are the models that each site brings. ``weight_key`` is the metric by which FedAvg weighs updates. A
    metric's name is allowed exactly as it stands here, after its first word with these placeholders between slashes:
    ``*`` a finding of the plan's task, ``d#`` one of ``DATASETS``, ``k#`` a level of its sparse autoencoder (``k64``),
    ``#`` the upper edge of a histogram's bin (``protocol/histogram.py``).
    """

    settings: type[Settings]
    needs: frozenset[Model]
    weight_key: str
    train_metrics: frozenset[str]
    evaluate_metrics: frozenset[str]


_AUROC = ("auroc", "auroc_low", "auroc_high")
_COUNTED = ("num_positive", "num_labelled")
_VALIDATION = (
    "num_exams/d#",
    "num_texts/d#",
    *(f"recall_at_{rank}/d#" for rank in RECALLS),
    *(f"{word}/*/d#" for word in (*_AUROC, *_COUNTED)),
)

_TRAINING = frozenset(
    {
        "num_exams",
        "num_samples",
        "num_steps",
        "num_skipped_steps",
        "loss",
        "loss/d#",
        "learning_rate",
        "grad_norm",
        "samples_per_s",
        "data_wait",
        "micro_batch",
        "num_processes",
        "peak_memory_gb",
        "duration_s",
        "num_texts_cut",
        "moments_reset",
    }
)
"""What every training visit tells, whatever its task."""
_CODES = ("explained_variance/k#", "dead_share/k#")
_TEXT = ("num_exams", "mlm_loss", "mlm_accuracy", "pair_loss", "pair_accuracy")

_LEARNED_FROM = ("num_with_teacher", "num_with_outcome", "num_without_views", "num_without_targets")

SHARES = frozenset({*_AUROC, *(f"probe_{word}" for word in _AUROC), *(f"recall_at_{rank}" for rank in RECALLS)}) | {
    "density_accuracy",
    "data_wait",
    "mlm_accuracy",
    "pair_accuracy",
    "dead_share",
    "silent_share",
    *RISK_SHARES,
}
"""Metrics from 0 to 1, by the word before finding and data set."""
_CHANGES = ("auroc_change", "auroc_change_low", "auroc_change_high")
SIGNED = frozenset(_CHANGES) | RISK_CORRELATIONS
"""Metrics from -1 to 1, likewise."""
AT_MOST_1 = frozenset({"explained_variance"})
"""Metrics that may lie anywhere below 1, likewise."""
COUNTS = frozenset({*_COUNTED, *_LEARNED_FROM, "histogram_positive", "histogram_negative", "num_texts"})
"""Metrics that are whole numbers from 0, likewise."""


def _risk(settings: type[RiskSettings]) -> TaskDeclaration:
    """Both risk heads tell the same."""
    return TaskDeclaration(
        settings=settings,
        needs=frozenset({"encoder"}),
        weight_key="num_exams",
        train_metrics=_TRAINING
        | {"loss_distillation", "loss_outcome", *_LEARNED_FROM}
        | {f"{when}/{name}/d#" for when in ("received", "sent") for name in RISK_VALIDATION},
        evaluate_metrics=RISK_EVALUATION,
    )


TASKS: Mapping[str, TaskDeclaration] = {
    "pretrain": TaskDeclaration(
        settings=PretrainSettings,
        needs=frozenset({"text_encoder"}),
        weight_key="num_exams",
        train_metrics=frozenset(
            {
                *_TRAINING,
                "loss_image_text",
                "loss_image_image",
                "loss_text_text",
                "temperature",
                *(f"{when}/{name}" for when in ("received", "sent") for name in _VALIDATION),
            }
        ),
        evaluate_metrics=frozenset(
            {
                "num_exams",
                "density_accuracy",
                "duration_s",
                "suppressed/*",
                "histogram_positive/*/#",
                "histogram_negative/*/#",
                *(f"{word}/*" for word in (*_AUROC, *_COUNTED)),
                *(f"probe_{word}/*" for word in _AUROC),
            }
        ),
    ),
    "text": TaskDeclaration(
        settings=TextSettings,
        needs=frozenset({"text_encoder"}),
        weight_key="num_exams",
        train_metrics=_TRAINING
        | {"mlm_loss", "pair_loss"}
        | {f"{when}/{name}/d#" for when in ("received", "sent") for name in _TEXT},
        evaluate_metrics=frozenset({*_TEXT, "duration_s"}),
    ),
    "risk-mirai": _risk(RiskMiraiSettings),
    "risk-asymmirai": _risk(RiskAsymmiraiSettings),
    "sae": TaskDeclaration(
        settings=SaeSettings,
        needs=frozenset({"encoder"}),
        weight_key="num_exams",
        train_metrics=_TRAINING
        | {"relative_error", "code_l1", "silent_share"}
        | {f"{when}/{name}/d#" for when in ("received", "sent") for name in ("num_exams", "loss", *_CODES)},
        evaluate_metrics=frozenset(
            {
                "num_exams",
                "loss",
                "duration_s",
                *_CODES,
                "suppressed/*",
                *(f"{word}/*" for word in (*_AUROC, *_COUNTED)),
                *(f"{word}/*/k#" for word in _CHANGES),
            }
        ),
    ),
}
