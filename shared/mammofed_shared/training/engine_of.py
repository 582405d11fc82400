"""Which engine a site's hardware asks for, and what of a run it cannot do."""

from torch import nn

from mammofed_shared.config.pretrain import OptimizerSettings
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.training.engine import Engine, WholeModelEngine
from mammofed_shared.training.gradient_term import GradientTerm
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.step import Precision
from mammofed_shared.training.zero import ZeroEngine


def make_engine(
    model: nn.Module,
    group: WorkerGroup,
    optimizer: OptimizerSettings,
    precision: Precision,
    term: GradientTerm | None = None,
) -> Engine:
    """The engine that the site's hardware asks for.

    Args:
        term: what the run's strategy adds to the gradients.

    Raises:
        VisitFailed: SETTINGS, for fp16 or a term with ZeRO.
    """
    distribution = group.hardware.distribution
    if not distribution.startswith("zero"):
        return WholeModelEngine(
            model,
            group,
            weight_decay=optimizer.weight_decay,
            clip_norm=optimizer.clip_norm,
            is_fp16=precision == "fp16",
            term=term,
        )
    if term is not None:
        raise VisitFailed(
            RefusalCode.SETTINGS,
            f"worker.distribution is {distribution}, whose processes never hold a whole gradient; this run's strategy "
            "(fedprox or scaffold) adds to it: set worker.distribution to none or ddp",
        )
    if precision == "fp16":
        raise VisitFailed(
            RefusalCode.SETTINGS,
            f"worker.distribution is {distribution}, which trains in bf16 or fp32; this run asks for fp16: set "
            "worker.distribution to none or ddp",
        )
    stage = int(distribution.removeprefix("zero-"))
    return ZeroEngine(model, group, weight_decay=optimizer.weight_decay, clip_norm=optimizer.clip_norm, stage=stage)
