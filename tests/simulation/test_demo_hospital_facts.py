"""What the demo reads of hospitals: boxes on prepared images, counts, and their audit records."""

from pathlib import Path

import pytest

from mammofed_server.status import RunStatus, SiteLine
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_simulation.demo.examples import Box, to_prepared
from mammofed_simulation.demo.joint import in_the_middle
from mammofed_simulation.demo.population import departure_of, populations_of
from mammofed_site.audit import Audit
from prepared import site_settings

SIZE = PreprocessingSettings(height=100, width=50)
BOX = {"finding": "mass", "top": "110", "left": "40", "height": "20", "width": "30"}
CROP = {"crop_top": 100, "crop_left": 20, "crop_height": 200, "crop_width": 200}


def test_box_follows_its_image_through_crop_and_resize() -> None:
    assert to_prepared(BOX, CROP | {"flipped": False}, SIZE) == Box("mass", 5.0, 5.0, 7.5, 10.0)


def test_box_is_mirrored_with_its_image() -> None:
    assert to_prepared(BOX, CROP | {"flipped": True}, SIZE) == Box("mass", 37.5, 5.0, 7.5, 10.0)


def test_population_counts_what_is_trained_on_and_held_out(tmp_path: Path) -> None:
    (found,) = populations_of(site_settings(tmp_path, "mayo", seed=4))
    assert (found.site, found.dataset, found.is_phantom) == ("mayo", "screening", True)
    assert (found.num_train, found.num_test, found.num_images, found.num_refused) == (8, 6, 56, 0)
    assert found.texts == "reports"
    assert found.vendors == ("other",)
    assert sum(found.density.values()) == 14
    assert 0 < found.prevalence["mass"] < 1


def test_departures_are_counted_once_a_task_from_the_audit_record(tmp_path: Path) -> None:
    audit = Audit(tmp_path)
    train, evaluate = "demo/r0001/v00002/mayo/train", "demo/r0001/v00002/mayo/evaluate"
    audit.write("permitted", task=train)
    for _ in range(2):  # killed after the release, and released again
        audit.write("released", task=train, digest="a" * 64, size=1000, metrics=["loss"])
    audit.write("released", task=evaluate, digest="", size=0, metrics=["auroc/mass"])
    counts = ["num_images", "num_images_by_view/cc", "num_images_by_view/mlo"]
    audit.write("released", task="demo/r0000/v00000/mayo/query", digest="", size=0, metrics=counts)
    audit.write("refused", task=train, code="NOT_FINITE")
    found = departure_of("mayo", tmp_path)
    assert (found.num_visits, found.num_bytes, found.num_evaluations, found.refused) == (1, 1000, 1, 1)
    assert found.numbers == ("auroc/mass", "loss", "num_images", "num_images_by_view/…")


def status(**of_mayo: object) -> RunStatus:
    line = {
        "site": "mayo",
        "state": "training",
        "kind": "train",
        "round": 3,
        "visit": 8,
        "epoch": 0,
        "step": 5,
        "num_steps": 15,
        "loss": 2.0,
        "samples_per_s": 40.0,
        "steps_per_s": 5.0,
        "last_seen": 0.0,
        "num_training_exams": 120,
    }
    other = SiteLine.model_validate(line | {"site": "central"})
    return RunStatus(
        run="demo",
        state="running",
        turn=7,
        num_turns=18,
        round=3,
        num_rounds=6,
        eta_s=None,
        written=0.0,
        state_digest="",
        skipped=(),
        sites=(other, SiteLine.model_validate(line | of_mayo)),
        evaluation={},
    )


def test_client_is_killed_in_the_middle_of_a_visit_in_the_middle_of_the_run() -> None:
    found = in_the_middle(status())
    assert found is not None
    assert (found.site, found.step) == ("mayo", 5)


@pytest.mark.parametrize("change", [{"step": 0}, {"step": 15}, {"round": 2}, {"kind": "evaluate"}, {"kind": ""}])
def test_client_is_not_killed_at_another_moment(change: dict[str, object]) -> None:
    assert in_the_middle(status(**change)) is None
