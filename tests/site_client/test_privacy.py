"""A site's protection between training and release: paid once, drawn once, refused in time, silent beside it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from bare_site import bare_site
from federation import make_plan, small_state
from mammofed_shared.config.policy import PolicySettings
from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.config.privacy import PrivacySettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.config.text_adaptation import TextSettings
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.protocol.payload import Payload, reference_of
from mammofed_shared.protocol.plan import PayloadReference, Plan, Progress
from mammofed_shared.training.dp_sgd_account import DpSgdAccount, Spent
from mammofed_site import privacy
from mammofed_site.allowed_numbers import told_progress
from mammofed_site.gaussian_accountant import contribution_epsilon
from mammofed_site.noise_key import KEY_FILE
from mammofed_site.privacy import dp_sgd_order, is_protected_alike, permit_privacy, protect
from mammofed_site.privacy_ledger import LEDGER_FILE, Spending, read_spendings, spend
from mammofed_site.privacy_status import privacy_lines
from mammofed_site.visit import finished_result, make_order, visit_folder
from mammofed_site.withheld_numbers import withhold

NOISE = {"update_noise": {"clip_norm": 1.0, "noise_multiplier": 4.0, "largest_epsilon": 3.0}}
DP_SGD = {"dp_sgd": {"clip_norm": 1.0, "noise_multiplier": 1.0, "largest_epsilon": 3.0}}
TEXT = TextSettings(swapped_share=0)
FROZEN = PretrainSettings.model_validate({"image_encoder": {"batch_norm": "frozen"}})
SPENDING = Spending(
    release="a" * 64,
    task="other/r0001/v00001/mayo/train",
    mechanism="dp_sgd",
    noise_multiplier=1.0,
    sample_rate=0.1,
    steps=20,
    epsilon=1.0,
    delta=1e-5,
    time="2026-01-01T00:00:00Z",
)
REFERENCE = PayloadReference(digest="0" * 64, size=1)


def site_of(folder: Path, wanted: dict[str, object]) -> SiteSettings:
    policy = PolicySettings(privacy=PrivacySettings.model_validate(wanted))
    return bare_site(folder / "site").model_copy(update={"policy": policy})


def plan_of(number: int = 1, **changes: object) -> Plan:
    return make_plan(REFERENCE, visit=number).model_copy(update={"task": FROZEN, **changes})


def finished_visit(folder: Path, value: float = 3.0, account: DpSgdAccount | None = None) -> tuple[Path, Path]:
    """The state that came, and the result of a visit that has moved all weights."""
    result = folder / f"result-{value}"
    result.mkdir(exist_ok=True)
    small_state(folder / "state", 1.0)
    small_state(result / "update.safetensors", value, **{"norm.running_mean": np.arange(4, dtype=np.float32)})
    if account:
        (result / "privacy.json").write_text(account.model_dump_json())
    return folder / "state", result


def account_of(epsilon: float) -> DpSgdAccount:
    cost = Spent(noise_multiplier=1.0, sample_rate=0.1, steps=20)
    return DpSgdAccount(cost=cost, clip_norm=1.0, delta=1e-5, epsilon=epsilon)


def weights(path: Path) -> np.ndarray:
    with Payload(path) as payload:
        return payload["layer.weight"].copy()


# ── without a policy, and clipping alone ────────────────────────────────────────────────────────────────────────


def test_without_a_policy_the_update_leaves_as_it_is(tmp_path: Path) -> None:
    site, (state, result) = site_of(tmp_path, {}), finished_visit(tmp_path)

    permit_privacy(plan_of(), site)
    found = protect(site, plan_of(), state, result)

    assert found.path == result / "update.safetensors" and found.filters == () and found.epsilon is None
    assert withhold(plan_of(), site, {"loss": 1.0}) == {"loss": 1.0}
    assert told_progress(Progress(loss=2.0), site.policy)["loss"] == 2.0
    assert not (site.folder / LEDGER_FILE).exists()


def test_clipping_alone_has_no_epsilon_and_hides_no_number(tmp_path: Path) -> None:
    site, (state, result) = site_of(tmp_path, {"clip_norm": 0.5}), finished_visit(tmp_path)

    found = protect(site, plan_of(), state, result)

    assert [(item.kind, item.value) for item in found.filters] == [("clipped", 0.5)]
    assert found.epsilon is None and read_spendings(site.folder) == ()
    assert withhold(plan_of(), site, {"loss": 1.0}) == {"loss": 1.0}
    moved = weights(found.path).astype(np.float64) - weights(state)
    assert 0 < np.linalg.norm(moved) <= 0.5 + 1e-6


# ── noise on updates ────────────────────────────────────────────────────────────────────────────────────────────


def test_noise_is_paid_before_the_file_is_there_and_once_however_often_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, (state, result) = site_of(tmp_path, NOISE), finished_visit(tmp_path)

    def killed(*_: object, **__: object) -> None:
        assert len(read_spendings(site.folder)) == 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(privacy, "write_noised", killed)
        protect(site, plan_of(), state, result)
    first = protect(site, plan_of(), state, result)
    sent = reference_of(first.path)
    first.path.unlink()
    again = protect(site, plan_of(), state, result)

    assert reference_of(again.path) == sent, "the noise is drawn once"
    [paid] = read_spendings(site.folder)
    assert paid.epsilon == first.epsilon == again.epsilon == contribution_epsilon([4.0], 1e-5)
    assert [(item.kind, item.value) for item in first.filters] == [("clipped", 1.0), ("gaussian-noise", 4.0)]
    assert (weights(first.path) != weights(result / "update.safetensors")).all()


def test_another_update_another_task_and_another_strength_are_releases_of_their_own(tmp_path: Path) -> None:
    site = site_of(tmp_path, {"update_noise": {**NOISE["update_noise"], "largest_epsilon": 99.0}})
    stronger = site_of(
        tmp_path, {"update_noise": {**NOISE["update_noise"], "noise_multiplier": 8.0, "largest_epsilon": 99.0}}
    )
    state, result = finished_visit(tmp_path)
    _, other = finished_visit(tmp_path, 4.0)

    noise = [
        weights(protect(*asked, state, where).path) - weights(where / "update.safetensors")
        for asked, where in [
            ((site, plan_of(1)), result), ((site, plan_of(1)), other), ((site, plan_of(2)), result),
            ((stronger, plan_of(1)), result),
        ]
    ]  # fmt: skip

    assert len(read_spendings(site.folder)) == 4
    for first, second in [(0, 1), (0, 2), (0, 3)]:
        assert abs(np.corrcoef(noise[first].ravel(), noise[second].ravel())[0, 1]) < 0.9, "no draw serves twice"


def test_when_the_budget_is_spent_the_next_visit_is_refused_before_it_trains_and_a_paid_one_is_still_sent(
    tmp_path: Path,
) -> None:
    site, (state, result) = site_of(tmp_path, NOISE), finished_visit(tmp_path)
    _, other = finished_visit(tmp_path, 4.0)
    permit_privacy(plan_of(1), site)
    protect(site, plan_of(1), state, result)

    assert contribution_epsilon([4.0], 1e-5) < 3.0 < contribution_epsilon([4.0, 4.0, 4.0], 1e-5)
    permit_privacy(plan_of(2), site)
    protect(site, plan_of(2), state, other)
    with pytest.raises(Refused, match="2 updates have left") as refused:
        permit_privacy(plan_of(3), site)
    with pytest.raises(Refused):
        protect(site, plan_of(3), state, result)

    assert refused.value.code is RefusalCode.PRIVACY_BUDGET
    assert len(read_spendings(site.folder)) == 2
    permit_privacy(plan_of(2), site)
    assert protect(site, plan_of(2), state, other).path.exists()


def test_a_lost_key_makes_every_release_a_new_one(tmp_path: Path) -> None:
    site, (state, result) = site_of(tmp_path, NOISE), finished_visit(tmp_path)
    protect(site, plan_of(), state, result)
    (site.folder / KEY_FILE).unlink()

    protect(site, plan_of(), state, result)

    assert len(read_spendings(site.folder)) == 2, "two draws of the noise are two releases"


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    site, (state, result) = site_of(tmp_path, NOISE), finished_visit(tmp_path)
    (site.folder / KEY_FILE).write_bytes(bytes(32))
    (site.folder / KEY_FILE).chmod(0o644)
    with pytest.raises(Refused, match="mode 644") as refused:
        protect(site, plan_of(), state, result)
    assert refused.value.code is RefusalCode.POLICY and os.fspath(tmp_path) not in str(refused.value)


@pytest.mark.parametrize(
    ("wanted", "changes", "said"),
    [
        (NOISE, {"task": PretrainSettings()}, "batch_norm to frozen"),
        (NOISE, {"control_variates": True}, "SCAFFOLD"),
        ({"clip_norm": 1.0}, {"control_variates": True}, "SCAFFOLD"),
        (DP_SGD, {}, "contrasts each sample"),
        (DP_SGD, {"task": TextSettings()}, "task.swapped_share to 0"),
    ],
)
def test_what_cannot_be_protected_is_not_trained(
    tmp_path: Path, wanted: dict[str, object], changes: dict[str, object], said: str
) -> None:
    site = site_of(tmp_path, wanted)
    with pytest.raises(Refused, match=said) as refused:
        permit_privacy(plan_of(**changes), site)
    assert refused.value.code is RefusalCode.POLICY
    permit_privacy(plan_of(kind="evaluate", **changes), site)


# ── DP-SGD ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_visit_with_dp_sgd_is_paid_once_and_the_next_worker_is_told(tmp_path: Path) -> None:
    site, (state, result) = site_of(tmp_path, DP_SGD), finished_visit(tmp_path, account=account_of(2.0))
    plan = plan_of(task=TEXT)

    permit_privacy(plan, site)
    found = [protect(site, plan, state, result) for _ in range(2)][-1]

    assert found.path == result / "update.safetensors" and found.epsilon == 2.0
    assert [(item.kind, item.value) for item in found.filters] == [("dp-sgd", 1.0)]
    order = dp_sgd_order(site)
    assert order is not None and order.spent == (account_of(0).cost,)
    assert order.settings == site.policy.privacy.dp_sgd


def test_an_account_above_the_budget_lets_nothing_leave(tmp_path: Path) -> None:
    site, (state, result) = site_of(tmp_path, DP_SGD), finished_visit(tmp_path, account=account_of(3.1))
    with pytest.raises(Refused, match=r"ε is 3\.1") as refused:
        protect(site, plan_of(task=TEXT), state, result)
    assert refused.value.code is RefusalCode.PRIVACY_BUDGET and read_spendings(site.folder) == ()


def test_a_finished_visit_is_done_again_when_another_one_was_paid_since_it_was_priced(tmp_path: Path) -> None:
    """Else two runs that share a folder could each be within the budget, and both together above it."""
    site, plan = site_of(tmp_path, DP_SGD), plan_of(task=TEXT)
    folder = visit_folder(site, plan.task_id)
    folder.mkdir(parents=True)
    state, result = finished_visit(folder, account=account_of(2.0))
    result = result.rename(folder / "result")
    order = make_order(site, plan, state)
    (folder / "visit.json").write_text(order.model_dump_json())
    assert finished_result(site, folder, plan) == result

    spend(site.folder, SPENDING)
    assert finished_result(site, folder, plan) is None

    now = make_order(site, plan, state)
    (folder / "visit.json").write_text(now.model_dump_json())
    protect(site, plan, state, result)
    assert len(read_spendings(site.folder)) == 2
    assert finished_result(site, folder, plan) == result, "it is paid, and may be sent again"


def test_a_visit_that_was_trained_by_another_rule_than_todays_does_not_leave_and_one_that_is_private_is_always_paid(
    tmp_path: Path,
) -> None:
    weaker = {"dp_sgd": {**DP_SGD["dp_sgd"], "noise_multiplier": 0.9}}
    state, result = finished_visit(tmp_path, account=account_of(2.0))
    _, without = finished_visit(tmp_path, 4.0)
    for wanted, trained in ((weaker, result), (DP_SGD, without)):
        with pytest.raises(Refused, match="has changed since this visit began") as refused:
            protect(site_of(tmp_path, wanted), plan_of(task=TEXT), state, trained)
        assert refused.value.code is RefusalCode.POLICY

    given_up = protect(site_of(tmp_path, {}), plan_of(task=TEXT), state, result)

    assert [(item.kind, item.value) for item in given_up.filters] == [("dp-sgd", 1.0)]
    assert len(read_spendings(site_of(tmp_path, {}).folder)) == 1


def test_dp_sgd_is_refused_on_several_processes(tmp_path: Path) -> None:
    site = site_of(tmp_path, DP_SGD)
    worker = site.worker.model_copy(update={"processes": 2, "distribution": "ddp"})
    with pytest.raises(Refused, match=r"worker\.processes to 1") as refused:
        permit_privacy(plan_of(task=TEXT), site.model_copy(update={"worker": worker}))
    assert refused.value.code is RefusalCode.SETTINGS


def test_noise_on_updates_counts_for_patients_but_dp_sgd_not_for_the_contribution(tmp_path: Path) -> None:
    noisy, private = site_of(tmp_path, NOISE), site_of(tmp_path, DP_SGD)
    state, result = finished_visit(tmp_path, account=account_of(2.0))
    protect(noisy, plan_of(1), state, result)

    order = dp_sgd_order(private)
    assert order is not None and order.spent == (Spent(noise_multiplier=2.0, sample_rate=1.0, steps=1),)
    protect(private, plan_of(2, task=TEXT), state, result)
    with pytest.raises(Refused, match="stay with dp_sgd") as refused:
        permit_privacy(plan_of(3), noisy)
    assert refused.value.code is RefusalCode.PRIVACY_BUDGET


def test_what_an_earlier_visit_kept_has_no_part_in_noised_updates_unless_it_was_noised_too(tmp_path: Path) -> None:
    noisy, private, plain = (site_of(tmp_path, wanted) for wanted in (NOISE, DP_SGD, {}))
    state, result = finished_visit(tmp_path, account=account_of(2.0))

    assert is_protected_alike(plain, result) and not is_protected_alike(noisy, result), "nothing is known of it"
    protect(noisy, plan_of(1), state, result)
    assert is_protected_alike(noisy, result) and not is_protected_alike(private, result)
    protect(private, plan_of(2, task=TEXT), state, result)
    assert is_protected_alike(private, result) and not is_protected_alike(noisy, result)
    assert is_protected_alike(plain, result)


# ── what is told beside the weights ─────────────────────────────────────────────────────────────────────────────

NUMBERS = {
    "num_exams": 8.0, "num_steps": 2.0, "num_samples": 11.0, "learning_rate": 1e-3, "loss": 0.5, "loss/d1": 0.5,
    "mlm_loss": 0.5, "grad_norm": 3.0, "num_texts_cut": 1.0, "samples_per_s": 9.0, "duration_s": 2.0,
    "received/mlm_loss/d1": 2.0, "sent/mlm_loss/d1": 1.0,
}  # fmt: skip


def test_numbers_of_training_data_stay_where_noise_hides_them(tmp_path: Path) -> None:
    of_no_data = {"num_exams", "num_steps", "learning_rate", "duration_s"}
    assert set(withhold(plan_of(), site_of(tmp_path, NOISE), NUMBERS)) == of_no_data
    of_validation = {"received/mlm_loss/d1", "sent/mlm_loss/d1"}
    assert set(withhold(plan_of(), site_of(tmp_path, DP_SGD), NUMBERS)) == of_no_data | of_validation
    for wanted in (NOISE, DP_SGD):
        shown = told_progress(Progress(epoch=1, step=2, loss=0.5, samples_per_s=3.0), site_of(tmp_path, wanted).policy)
        assert shown == {"epoch": 1, "step": 2, "num_steps": 0, "steps_per_s": 0}


def test_a_probe_that_is_fitted_to_training_patients_is_not_told_under_noise(tmp_path: Path) -> None:
    evaluated = {"auroc/mass": 0.8, "probe_auroc/mass": 0.9, "probe_auroc_low/mass": 0.8}
    plan = plan_of(kind="evaluate")
    assert withhold(plan, site_of(tmp_path, NOISE), evaluated) == {"auroc/mass": 0.8}
    assert withhold(plan, site_of(tmp_path, {}), evaluated) == evaluated


@pytest.mark.parametrize(
    "wanted",
    [
        NOISE | DP_SGD,
        NOISE | {"clip_norm": 1.0},
        {"update_noise": {**NOISE["update_noise"], "noise_multiplier": 0}},
        {"dp_sgd": {**DP_SGD["dp_sgd"], "noise_multiplier": float("inf")}},
        {"dp_sgd": {"clip_norm": 1.0, "noise_multiplier": 1.0}},
        {"clip_norm": 0},
    ],
)
def test_settings_that_promise_nothing_or_two_things_are_refused(wanted: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"privacy|greater than 0|finite number|Field required"):
        PrivacySettings.model_validate(json.loads(json.dumps(wanted)))


def test_the_command_tells_what_is_protected_and_what_is_spent(tmp_path: Path) -> None:
    site, (state, result) = site_of(tmp_path, NOISE), finished_visit(tmp_path)
    assert [*privacy_lines(site)][-1] == "nothing is spent"
    protect(site, plan_of(1), state, result)

    said = "\n".join(privacy_lines(site))

    assert "update_noise" in said and "budget: ε 3" in said and plan_of(1).task_id in said
    assert said.endswith("spent: ε 1.99 of 3")
    assert "nothing is promised" in next(privacy_lines(site_of(tmp_path, {})))
    assert "which is not private" in "\n".join(privacy_lines(site_of(tmp_path, {"clip_norm": 1.0})))
