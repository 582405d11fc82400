"""This site's protection of its patients, between training and release: clipping, noise, the budget (docs/privacy.md).

<site folder>/noise.key                     what noise on updates is drawn from; never leaves, never shown
<site folder>/privacy-ledger.jsonl          what was spent (privacy_ledger.py)
<result>/filtered-<release>.safetensors     the update as it may leave
<result>/filters.json                       what was done to it

The noise of an update is a function of the key and of what it is added to: a restart, or a plan that is sent again,
gets the same file. So nobody can ask for many draws and take their mean.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mammofed_shared.clock import utc_now
from mammofed_shared.config.privacy import (
    DpSgdSettings,
    PrivacySettings,
    UpdateNoiseSettings,
    dp_sgd_obstacle,
    update_noise_obstacle,
)
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.files import write_whole
from mammofed_shared.noise import subkey
from mammofed_shared.protocol.payload import reference_of
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.protocol.statement import Filter
from mammofed_shared.training.dp_sgd_account import ACCOUNT_FILE, DpSgdAccount, DpSgdOrder, Spent
from mammofed_site.gaussian_accountant import REPLACEMENT, contribution_epsilon
from mammofed_site.noise_key import noise_key
from mammofed_site.privacy_ledger import Spending, is_paid, read_spendings, spend
from mammofed_site.update_noise import measured_norm, write_clipped, write_noised

logger = logging.getLogger(__name__)

FILTERED = "filtered-*.safetensors"
FILTERS_FILE = "filters.json"


@dataclass(frozen=True, slots=True)
class Protected:
    """An update as it may leave, what was done to it, and ε of all releases up to it; None without a budget."""

    path: Path
    filters: tuple[Filter, ...]
    epsilon: float | None


def permit_privacy(plan: Plan, settings: SiteSettings) -> None:
    """Return if this site's protection can be had with a plan, and there is budget for one more release.

    Raises:
        Refused: POLICY, SETTINGS or PRIVACY_BUDGET; the message, which stays here, says what to change.
    """
    privacy = settings.policy.privacy
    if plan.kind != "train" or privacy == PrivacySettings():
        return
    if plan.control_variates:
        raise Refused(
            RefusalCode.POLICY,
            "the run asks for control variates (SCAFFOLD), which would leave beside what this site's policy clips: "
            "take another strategy, or leave `privacy` out",
        )
    if privacy.update_noise:
        _refuse_for(update_noise_obstacle(plan.task), "update_noise")
        spendings = read_spendings(settings.folder)
        if not any(spending.task == plan.task_id for spending in spendings):  # a paid one may only want to be sent
            _contribution_epsilon(privacy.update_noise, spendings)
    if privacy.dp_sgd:
        _refuse_for(dp_sgd_obstacle(plan.task), "dp_sgd")
        if settings.worker.processes > 1 or settings.worker.distribution.startswith("zero"):
            raise Refused(
                RefusalCode.SETTINGS,
                "privacy.dp_sgd clips each patient's gradient in one process: set worker.processes to 1 and "
                "worker.distribution to none",
            )
        read_spendings(settings.folder)  # a damaged one is found before hours of training


def dp_sgd_order(settings: SiteSettings) -> DpSgdOrder | None:
    """What a worker of this site is told of DP-SGD; None where the policy asks for none."""
    wanted = settings.policy.privacy.dp_sgd
    if wanted is None:
        return None
    spent = tuple(
        Spent(
            # Noise on updates covers any change of the data, so also that of one patient.
            noise_multiplier=spending.noise_multiplier / (REPLACEMENT if spending.mechanism == "update_noise" else 1),
            sample_rate=spending.sample_rate,
            steps=spending.steps,
        )
        for spending in read_spendings(settings.folder)
    )
    return DpSgdOrder(settings=wanted, spent=spent)


def is_price_of_today(settings: SiteSettings, order: DpSgdOrder, result: Path) -> bool:
    """Whether what a finished visit with DP-SGD costs was told with all in mind that is paid today, or is paid itself.

    Args:
        order: the visit's.
        result: its folder.
    """
    now = dp_sgd_order(settings)
    if now is None or now.spent == order.spent:
        return True
    return is_paid(read_spendings(settings.folder), reference_of(result / "update.safetensors").digest)


def protect(settings: SiteSettings, plan: Plan, state: Path, result: Path) -> Protected:
    """The update of a finished training visit as this site's policy lets it leave; what it costs is in the ledger.

    Raises:
        Refused: PRIVACY_BUDGET, nothing may leave; or as ``update_noise.measured_norm``.
    """
    noise = settings.policy.privacy.update_noise
    if noise:
        protected = _with_noise(settings, plan, noise, state, result)
    else:
        protected = _trained_and_clipped(settings, plan, state, result)
    kinds = [item.kind for item in protected.filters]
    write_whole(result / FILTERS_FILE, json.dumps(kinds))
    return protected


def is_protected_alike(settings: SiteSettings, result: Path) -> bool:
    """Whether what an earlier visit has kept may have a part in what leaves today: not, where noise is asked for today
    that was not there then.

    Args:
        result: of the earlier visit.
    """
    privacy = settings.policy.privacy
    if not privacy.is_noisy:
        return True
    try:
        kinds = json.loads((result / FILTERS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    return ("gaussian-noise" if privacy.update_noise else "dp-sgd") in kinds


def _trained_and_clipped(settings: SiteSettings, plan: Plan, state: Path, result: Path) -> Protected:
    """With DP-SGD or without noise; the norm is clipped where the policy says so."""
    privacy, update = settings.policy.privacy, result / "update.safetensors"
    filters: list[Filter] = []
    epsilon = None
    if privacy.dp_sgd or (result / ACCOUNT_FILE).exists():
        account = _pay_visit(settings, plan, privacy.dp_sgd, result)
        epsilon = account.epsilon
        filters.append(Filter(kind="dp-sgd", value=account.cost.noise_multiplier))
    if privacy.clip_norm is not None:
        clipped = result / f"filtered-{reference_of(update).digest[:16]}-{privacy.clip_norm!r}.safetensors"
        if not clipped.exists():
            write_clipped(update, state, clipped, norm=measured_norm(update, state), clip_norm=privacy.clip_norm)
        update = clipped
        filters.append(Filter(kind="clipped", value=privacy.clip_norm))
    return Protected(update, tuple(filters), epsilon)


def _with_noise(settings: SiteSettings, plan: Plan, noise: UpdateNoiseSettings, state: Path, result: Path) -> Protected:
    update = result / "update.safetensors"
    norm = measured_norm(update, state, are_statistics_frozen=True)  # what is refused here costs nothing
    key = noise_key(settings.folder)
    # The strength is in the labels: two strengths of one noise would give the update away by subtraction.
    labels = (
        plan.task_id, reference_of(update).digest, reference_of(state).digest,
        repr(noise.clip_norm), repr(noise.noise_multiplier),
    )  # fmt: skip
    release = subkey(key, "release", *labels).hex()
    spendings = read_spendings(settings.folder)
    paid = next((spending for spending in spendings if spending.release == release), None)
    if paid is None:
        cost = Spent(noise_multiplier=noise.noise_multiplier, sample_rate=1.0, steps=1)
        epsilon = _contribution_epsilon(noise, spendings)
        paid = _spending(plan, release, "update_noise", cost, epsilon, noise.delta)
        spend(settings.folder, paid)
    path = result / f"filtered-{release[:16]}.safetensors"
    if not path.exists():
        write_noised(
            update,
            state,
            path,
            norm=norm,
            clip_norm=noise.clip_norm,
            noise_multiplier=noise.noise_multiplier,
            key=subkey(key, "noise", *labels),
        )
    filters = (
        Filter(kind="clipped", value=noise.clip_norm),
        Filter(kind="gaussian-noise", value=noise.noise_multiplier),
    )
    return Protected(path, filters, paid.epsilon)


def _refuse_for(obstacle: str | None, option: str) -> None:
    if obstacle is not None:
        raise Refused(RefusalCode.POLICY, f"this site's policy asks for privacy.{option}, but {obstacle}")


def _contribution_epsilon(noise: UpdateNoiseSettings, spendings: tuple[Spending, ...]) -> float:
    """ε of everything that was released and one more."""
    if any(spending.mechanism == "dp_sgd" for spending in spendings):
        raise Refused(
            RefusalCode.PRIVACY_BUDGET,
            "updates have left with dp_sgd, which hides no contribution as a whole, so there is no ε of it any more: "
            "stay with dp_sgd",
        )
    multipliers = [spending.noise_multiplier for spending in spendings]
    epsilon = contribution_epsilon([*multipliers, noise.noise_multiplier], noise.delta)
    if epsilon > noise.largest_epsilon:
        raise Refused(
            RefusalCode.PRIVACY_BUDGET,
            f"{len(multipliers)} updates have left; with one more ε would be {epsilon:.3g} at δ {noise.delta:g}, and "
            f"privacy.update_noise.largest_epsilon is {noise.largest_epsilon:g}",
        )
    return epsilon


def _pay_visit(settings: SiteSettings, plan: Plan, wanted: DpSgdSettings | None, result: Path) -> DpSgdAccount:
    """Enter a visit that was trained with DP-SGD, also where the policy has given it up since."""
    path, release = result / ACCOUNT_FILE, reference_of(result / "update.safetensors").digest
    account = DpSgdAccount.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None
    if account is None or (wanted is not None and not _is_as_wanted(account, wanted)):
        raise Refused(RefusalCode.POLICY, "privacy.dp_sgd has changed since this visit began: it must begin anew")
    if not is_paid(read_spendings(settings.folder), release):
        if wanted is not None and account.epsilon > wanted.largest_epsilon:
            raise Refused(
                RefusalCode.PRIVACY_BUDGET,
                f"with this visit ε is {account.epsilon:.3g}, and privacy.dp_sgd.largest_epsilon is "
                f"{wanted.largest_epsilon:g}",
            )
        spend(settings.folder, _spending(plan, release, "dp_sgd", account.cost, account.epsilon, account.delta))
    return account


def _is_as_wanted(account: DpSgdAccount, wanted: DpSgdSettings) -> bool:
    found = account.cost.noise_multiplier, account.clip_norm, account.delta
    return found == (wanted.noise_multiplier, wanted.clip_norm, wanted.delta)


def _spending(
    plan: Plan, release: str, mechanism: Literal["update_noise", "dp_sgd"], cost: Spent, epsilon: float, delta: float
) -> Spending:
    return Spending(
        release=release,
        task=plan.task_id,
        mechanism=mechanism,
        noise_multiplier=cost.noise_multiplier,
        sample_rate=cost.sample_rate,
        steps=cost.steps,
        epsilon=epsilon,
        delta=delta,
        time=utc_now(),
    )
