"""A visit with DP-SGD: its secret, its price, and the budget that it must fit into. The accountant is opacus'.

Rényi differential privacy of the Gaussian mechanism on a Poisson sample (Mironov, Talwar, Zhang 2019), summed over all
steps of all visits of this site; neighbours are two sets of patients of which one has one patient more.
"""

import secrets
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opacus.accountants import RDPAccountant

from mammofed_shared.config.privacy import dp_sgd_obstacle
from mammofed_shared.config.text_adaptation import TextSettings
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.files import write_whole
from mammofed_shared.noise import KEY_BYTES
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.training.dp_sgd_account import DpSgdAccount, DpSgdOrder, Spent
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.private_step import PrivateGradients
from mammofed_shared.training.private_text import PrivateTextTask
from mammofed_shared.training.site_data import SiteData

ORDERS = [1.01, 1.05, *RDPAccountant.DEFAULT_ALPHAS, *range(64, 257, 8), 512, 1024]
"""Orders of Rényi divergence among which the best is taken."""


@dataclass(frozen=True, slots=True)
class PrivateVisit:
    """What the loop needs, and what the visit costs when it is done."""

    gradients: PrivateGradients
    account: DpSgdAccount


def visit_secret(path: Path) -> bytes:
    """The 32 bytes of a visit, drawn when it begins; a visit that was cut goes on with its own, to the same noise."""
    if not path.exists():
        write_whole(path, secrets.token_bytes(KEY_BYTES), mode=0o600)
    return path.read_bytes()


def bind_private(
    order: DpSgdOrder, plan: Plan, model: Any, data: SiteData, group: WorkerGroup, secret_path: Path
) -> tuple[PrivateTextTask, PrivateVisit]:
    """Join a model to a site's patients.

    Raises:
        VisitFailed: SETTINGS, the task, the model or the hardware does not allow it; PRIVACY_BUDGET.
    """
    obstacle = dp_sgd_obstacle(plan.task)
    if obstacle is None and (group.size > 1 or group.hardware.distribution.startswith("zero")):
        obstacle = "each patient's gradient is clipped in one process: set worker.processes to 1"
    if obstacle is not None or not isinstance(plan.task, TextSettings):
        raise VisitFailed(RefusalCode.SETTINGS, f"privacy.dp_sgd: {obstacle}")
    secret = visit_secret(secret_path)
    task = PrivateTextTask(plan.task, model, data, group, secret)
    return task, open_private_visit(order, task, plan.epochs, secret)


def open_private_visit(order: DpSgdOrder, task: PrivateTextTask, epochs: int, secret: bytes) -> PrivateVisit:
    """Price a visit before its first step.

    Raises:
        VisitFailed: PRIVACY_BUDGET, it would cost more than is left; SETTINGS, δ is too large for so few patients.
    """
    settings = order.settings
    if settings.delta * task.num_patients >= 1:
        raise VisitFailed(
            RefusalCode.SETTINGS,
            f"privacy.dp_sgd.delta is {settings.delta:g}, and this site has {task.num_patients} patients: a δ of "
            "1 / patients would allow one of them to be told outright; lower it",
        )
    cost = Spent(
        noise_multiplier=settings.noise_multiplier,
        sample_rate=task.sample_rate,
        steps=epochs * task.num_steps,
    )
    epsilon = patient_epsilon([*order.spent, cost], settings.delta)
    if epsilon > settings.largest_epsilon:
        before = patient_epsilon(order.spent, settings.delta)
        raise VisitFailed(
            RefusalCode.PRIVACY_BUDGET,
            f"ε is {before:.3g} and would be {epsilon:.3g} after this visit, at δ {settings.delta:g}; "
            f"privacy.dp_sgd.largest_epsilon is {settings.largest_epsilon:g}",
        )
    return PrivateVisit(
        gradients=PrivateGradients(settings, secret, task.sample_rate * task.num_patients),
        account=DpSgdAccount(cost=cost, clip_norm=settings.clip_norm, delta=settings.delta, epsilon=epsilon),
    )


def patient_epsilon(spent: Sequence[Spent], delta: float) -> float:
    """ε at δ of all that was spent; 0 of nothing."""
    if not spent:
        return 0.0
    accountant = RDPAccountant()
    accountant.history = [(item.noise_multiplier, item.sample_rate, item.steps) for item in spent]
    with warnings.catch_warnings():
        # It tells where another order might give a smaller ε; the one that it gives holds as well.
        warnings.filterwarnings("ignore", "Optimal order is the", UserWarning)
        return float(accountant.get_epsilon(delta, alphas=ORDERS))
