"""What a site takes part in: its own plans, on data and text encoder as the run asks for them."""

import errno
import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bare_site import bare_site
from federation import make_plan, small_state
from frozen_encoders import write_frozen_encoder
from mammofed_shared.config.frozen_encoder import encoder_digest
from mammofed_shared.config.policy import PolicySettings
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.config.risk import RiskAsymmiraiSettings, RiskMiraiSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.protocol.plan import PayloadReference, Plan
from mammofed_site import policy_file, veto
from mammofed_site.audit import Audit
from mammofed_site.hold import is_open, refuse_while_held
from mammofed_site.policy import check_tensor_names, permit
from mammofed_site.policy_command import policy_lines
from mammofed_site.policy_file import policy_in_force
from mammofed_site.veto import is_vetoed, lift_veto, set_veto
from mammofed_site.visit import make_order, visit_folder
from mammofed_site.visit_count import count_visit
from prepared import SMALL


@pytest.fixture
def settings(tmp_path: Path) -> SiteSettings:
    return bare_site(tmp_path / "site")


def _plan(settings: SiteSettings, **changes: object) -> Plan:
    plan = make_plan(PayloadReference(digest="0" * 64, size=1), site="mayo")
    right = {"preprocessing": SMALL.digest, "text_encoder": folder_digest(settings.text_encoder)}
    return plan.model_copy(update={**right, **changes})


def _refusal(plan: Plan, settings: SiteSettings) -> Refused:
    with pytest.raises(Refused) as caught:
        permit(plan, settings)
    return caught.value


def test_a_plan_that_fits_is_permitted(settings: SiteSettings) -> None:
    permit(_plan(settings), settings)


def test_a_plan_for_another_site_is_refused(settings: SiteSettings) -> None:
    assert _refusal(_plan(settings, site="central"), settings).code is RefusalCode.POLICY


def test_a_run_that_asks_for_other_images_is_refused(settings: SiteSettings) -> None:
    refusal = _refusal(_plan(settings, preprocessing=PreprocessingSettings(height=65, width=40).digest), settings)
    assert refusal.code is RefusalCode.PREPROCESSING_MISMATCH
    assert "data set screening" in str(refusal) and "site-client preprocess" in str(refusal)


def test_a_query_is_permitted_on_the_same_terms_as_a_visit(settings: SiteSettings) -> None:
    query = _plan(settings, kind="query", state=None)
    permit(query, settings)
    other = query.model_copy(update={"preprocessing": PreprocessingSettings(height=65, width=40).digest})
    assert _refusal(other, settings).code is RefusalCode.PREPROCESSING_MISMATCH


def test_one_data_set_that_is_not_prepared_refuses_the_visit(settings: SiteSettings) -> None:
    second = settings.datasets[0].model_copy(update={"name": "diagnostic"})
    both = settings.model_copy(update={"datasets": (*settings.datasets, second)})
    refusal = _refusal(_plan(settings), both)
    assert refusal.code is RefusalCode.NO_DATA
    assert "data set diagnostic" in str(refusal)


def test_one_file_of_the_text_encoder_that_differs_refuses_the_visit(settings: SiteSettings, tmp_path: Path) -> None:
    other = tmp_path / "encoder"
    other.mkdir()
    for file in settings.text_encoder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    plan = _plan(settings)
    permit(plan, settings.model_copy(update={"text_encoder": other}))
    (other / "tokenizer_config.json").write_text("{}")
    refusal = _refusal(plan, settings.model_copy(update={"text_encoder": other}))
    assert refusal.code is RefusalCode.TEXT_ENCODER_MISMATCH


def test_a_text_encoder_that_is_not_there_refuses_the_visit(settings: SiteSettings, tmp_path: Path) -> None:
    """The coordinator must hear a code: an error that ends the client would leave it waiting."""
    refusal = _refusal(_plan(settings), settings.model_copy(update={"text_encoder": tmp_path / "nowhere"}))
    assert refusal.code is RefusalCode.TEXT_ENCODER_MISMATCH
    assert "config.json" in str(refusal)


# ── a frozen model ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_frozen_model_is_asked_for_by_its_digest(settings: SiteSettings, tmp_path: Path) -> None:
    encoder = write_frozen_encoder(tmp_path)
    plan = _plan(settings, encoder=encoder_digest(encoder))
    permit(plan, settings.model_copy(update={"encoder": encoder}))

    missing = _refusal(plan, settings)
    assert missing.code is RefusalCode.ENCODER_MISMATCH
    assert "name its folder in `encoder` of this site's YAML" in str(missing)
    nowhere = _refusal(plan, settings.model_copy(update={"encoder": tmp_path / "nowhere"}))
    assert nowhere.code is RefusalCode.ENCODER_MISMATCH
    assert "fl-server export" in str(nowhere)
    (encoder / "manifest.json").write_text((encoder / "manifest.json").read_text() + "\n")
    other = _refusal(plan, settings.model_copy(update={"encoder": encoder}))
    assert other.code is RefusalCode.ENCODER_MISMATCH
    assert "frozen model with SHA-256" in str(other)


def test_a_task_that_reads_longer_vectors_than_the_frozen_model_gives_is_refused(
    settings: SiteSettings, tmp_path: Path
) -> None:
    encoder = write_frozen_encoder(tmp_path)
    site = settings.model_copy(update={"encoder": encoder})
    plan = _plan(settings, encoder=encoder_digest(encoder), task=RiskMiraiSettings(encoder_features=160))
    permit(plan, site)
    permit(plan.model_copy(update={"task": RiskAsymmiraiSettings(encoder_features=80)}), site)

    refusal = _refusal(plan.model_copy(update={"task": RiskMiraiSettings()}), site)
    assert refusal.code is RefusalCode.SETTINGS
    assert "task.encoder_features of the run is 2048, the frozen model gives vectors of 160" in str(refusal)


# ── the hospital's rules ────────────────────────────────────────────────────────────────────────────────────────


def _with(settings: SiteSettings, **rules: object) -> SiteSettings:
    return settings.model_copy(update={"policy": PolicySettings.model_validate(rules)})


@pytest.mark.parametrize(
    ("rules", "changes"),
    [
        ({"tasks": ["text"]}, {}),
        ({"runs": ["paper"]}, {}),
        ({"configurations": ["1" * 64]}, {}),
        ({"runs": ["test"], "configurations": ["1" * 64]}, {}),
        ({"max_rounds": 3}, {"round": 4}),
        ({"smallest_cohort": 3}, {"num_sites": 2}),
    ],
)
def test_what_a_rule_does_not_allow_is_refused_and_the_log_says_which(
    settings: SiteSettings, rules: dict[str, object], changes: dict[str, object]
) -> None:
    refusal = _refusal(_plan(settings, **changes), _with(settings, **rules))
    assert refusal.code is RefusalCode.POLICY
    assert f"`{list(rules)[-1]}` does not allow" in str(refusal)


def test_what_every_rule_allows_is_permitted(settings: SiteSettings) -> None:
    rules = {"tasks": ["pretrain"], "runs": ["test"], "configurations": ["0" * 64], "max_rounds": 4}
    permit(_plan(settings, round=4, num_sites=3), _with(settings, **rules, smallest_cohort=3, max_visits=1))


def test_a_cohort_is_asked_of_training_alone(settings: SiteSettings) -> None:
    permit(_plan(settings, kind="evaluate"), _with(settings, smallest_cohort=3))


def test_updates_are_counted_by_the_site_itself_whatever_the_coordinator_calls_them(settings: SiteSettings) -> None:
    limited = _with(settings, max_visits=2)
    plans = [_plan(settings, task_id=f"test/r0001/v{number:05d}/mayo/train") for number in (1, 2, 3)]
    for plan in plans[:2]:
        permit(plan, limited)
        count_visit(settings.folder, plan)
    permit(plans[1], limited)  # the same one again, after a kill
    assert "`max_visits` does not allow update 3" in str(_refusal(plans[2], limited))
    permit(plans[2].model_copy(update={"run": "another"}), limited)


def test_tensors_that_may_not_leave_are_seen_before_the_visit_trains(settings: SiteSettings, tmp_path: Path) -> None:
    small_state(tmp_path / "state")
    check_tensor_names(PolicySettings(tensors=("layer.*", "norm.running_mean", "norm.num*")), tmp_path / "state")
    with pytest.raises(Refused, match=r"`tensors` does not allow 2 tensors, norm\.") as caught:
        check_tensor_names(PolicySettings(tensors=("layer.*",)), tmp_path / "state")
    assert caught.value.code is RefusalCode.POLICY


# ── a policy in a file of its own ───────────────────────────────────────────────────────────────────────────────


def test_a_policy_file_is_read_again_at_every_decision(settings: SiteSettings, tmp_path: Path) -> None:
    site = settings.model_copy(update={"policy": PolicySettings(file=tmp_path / "policy.yaml")})
    digests = set()
    for least_cell in (5, 20):
        (tmp_path / "policy.yaml").write_text(f"least_cell: {least_cell}\n")
        found = policy_in_force(site)
        assert found.settings.policy.least_cell == least_cell
        digests.add(found.digest)
    assert found.digest == hashlib.sha256((tmp_path / "policy.yaml").read_bytes()).hexdigest() and len(digests) == 2


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (None, "No such file"),
        (b"", "expected keys and values"),
        (b"least_cel: 5\n", "did you mean 'least_cell'?"),
        (b"\xff\xfe\n", "not a text file"),
        (b"file: other.yaml\n", "a policy file names no other"),
    ],
)
def test_a_policy_file_that_cannot_serve_refuses_everything(
    settings: SiteSettings, tmp_path: Path, written: bytes | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_file, "_AGAIN_AFTER_S", 0.0)
    path = tmp_path / "policy.yaml"
    if written is not None:
        path.write_bytes(written)
    with pytest.raises(Refused, match="everything is refused until it is mended or brought back") as caught:
        policy_in_force(settings.model_copy(update={"policy": PolicySettings(file=path)}))
    assert caught.value.code is RefusalCode.POLICY
    assert said in str(caught.value)


def test_hours_are_those_of_the_policys_time_zone() -> None:
    policy = PolicySettings(hours=("mon-sun 20:00-06:00",), time_zone="America/New_York")
    assert is_open(policy, datetime(2026, 1, 5, 3, 0, tzinfo=UTC)), "22:00 there"
    assert not is_open(policy, datetime(2026, 1, 5, 20, 30, tzinfo=UTC)), "15:30 there"


def test_a_full_disk_stops_no_veto(settings: SiteSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(veto, "write_whole", full)
        patched.setattr(Audit, "write", full)
        assert set_veto(settings.folder, "too late to write this down").reason == "too late to write this down"
    assert is_vetoed(settings.folder)
    with pytest.raises(Refused, match="has stopped taking part"):
        refuse_while_held(policy_in_force(settings))
    lift_veto(settings.folder)
    assert not is_vetoed(settings.folder)


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_says_what_is_in_force_and_what_it_does_to_the_last_plan(settings: SiteSettings) -> None:
    asked = _plan(settings)
    visit = visit_folder(settings, asked.task_id)
    visit.mkdir(parents=True)
    (visit / "visit.json").write_text(make_order(settings, asked, None).model_dump_json())
    said = list(policy_lines(_with(settings, runs=["test"])))
    assert "  privacy              none" in said
    assert "  runs                 test" in said and "  tasks                any" in said
    assert said[-3:] == [
        "now: takes part",
        f"last asked: run test, task pretrain, settings {'0' * 64}",
        "such a visit is allowed",
    ]
    set_veto(settings.folder, "until the board has met")
    said = list(policy_lines(_with(settings, runs=["paper"])))
    assert said[-3].startswith("now: VETOED by ") and "(until the board has met)" in said[-3]
    assert said[-1].startswith("such a visit is refused: POLICY: `runs` does not allow run test")
