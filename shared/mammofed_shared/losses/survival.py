"""Learning outcomes that are not known for every year.

Shapes: B exams, T years.
"""

from torch import Tensor
from torch.nn import functional


def censored_rows(logit_BT: Tensor, has_cancer_BT: Tensor, known_BT: Tensor) -> Tensor:
    """Binary cross-entropy, the mean over the years whose outcome is known, (B,); 0 where none is.

    Args:
        has_cancer_BT: 1 where cancer was found within t years, else 0; not looked at where it is not known.
        known_BT: bool. Of an exam that was followed for three years without cancer the first three are.
    """
    loss_BT = functional.binary_cross_entropy_with_logits(logit_BT, has_cancer_BT * known_BT, reduction="none")
    known = known_BT.to(loss_BT.dtype)
    return (loss_BT * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)
