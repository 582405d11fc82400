"""What a site takes part in: its own plans, on data and text encoder as the run asks for them."""

from pathlib import Path

import pytest

from bare_site import bare_site
from federation import make_plan
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.protocol.plan import PayloadReference, Plan
from mammofed_site.policy import permit
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
