"""Learning a teacher's risks (paper: Training, knowledge distillation; Hinton et al. 2015).

Each year's risk is a Bernoulli variable of its own. Terms are scaled as in the authors' released code
(golden d_kd_losses).

Shapes: B exams, T years.
"""

import torch
from torch import Tensor
from torch.nn import functional

_LEAST = 1e-6
"""Of a teacher's probability, so that its logit is finite."""


def teacher_logits(risk_BT: Tensor) -> Tensor:
    """The logits of a teacher's probabilities; 0 and 1 are taken as 10⁻⁶ away from themselves."""
    return torch.logit(risk_BT, eps=_LEAST)


def bernoulli_rows(logit_BT: Tensor, teacher_BT: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of the Bernoulli variables at temperature T, the mean over the years, (B,).

    Args:
        logit_BT, teacher_BT: logits.
    """
    soft_BT = torch.sigmoid(teacher_BT / temperature)
    cross_BT = functional.binary_cross_entropy_with_logits(logit_BT / temperature, soft_BT, reduction="none")
    own_BT = functional.binary_cross_entropy_with_logits(teacher_BT / temperature, soft_BT, reduction="none")
    return temperature**2 * (cross_BT - own_BT).mean(dim=1)


def squared_rows(logit_BT: Tensor, teacher_BT: Tensor, temperature: float) -> Tensor:
    """Squared difference of the logits at temperature T, the mean over the years, (B,)."""
    return ((logit_BT - teacher_BT) / temperature).square().mean(dim=1)
