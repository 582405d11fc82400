"""Numbers that the policy does not let leave are left out, and what is left is still an answer."""

from pathlib import Path

import pytest

from federation import METRICS, make_plan, small_state
from mammofed_shared.config.policy import PolicySettings
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.protocol.plan import Plan, Progress
from mammofed_shared.protocol.quality import TABLES, check_counts
from mammofed_shared.protocol.release import check_metrics
from mammofed_site.allowed_numbers import allowed_numbers, told_progress
from small_counts import TOLD


def _plan(folder: Path, kind: str) -> Plan:
    return make_plan(small_state(folder / "state") if kind != "query" else None, kind=kind)


def _allowing(*patterns: str) -> PolicySettings:
    return PolicySettings(metrics=patterns)


def test_without_a_rule_all_declared_numbers_leave(tmp_path: Path) -> None:
    assert allowed_numbers(_plan(tmp_path, "train"), METRICS, PolicySettings()) == METRICS


def test_a_number_that_is_not_allowed_is_left_out(tmp_path: Path) -> None:
    plan = _plan(tmp_path, "train")
    told = allowed_numbers(plan, {**METRICS, "loss/d1": 1.0}, _allowing("num_*", "loss"))
    assert told == {"num_exams": 10.0, "loss": 1.5}
    check_metrics(plan, told)


def test_without_its_weight_an_update_does_not_leave(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="does not allow num_exams") as caught:
        allowed_numbers(_plan(tmp_path, "train"), METRICS, _allowing("loss"))
    assert caught.value.code is RefusalCode.POLICY


@pytest.mark.parametrize(
    "left_out",
    ["num_positive/mass", "num_labelled/mass", "histogram_negative/mass/900", "histogram_positive/mass/1100"],
)
def test_histograms_leave_whole_and_with_their_counts_or_not_at_all(tmp_path: Path, left_out: str) -> None:
    plan = _plan(tmp_path, "evaluate")
    found = {"num_positive/mass": 20.0, "num_labelled/mass": 50.0, "auroc/mass": 0.75}
    found |= {"histogram_positive/mass/1100": 20.0, "histogram_negative/mass/900": 30.0}
    check_metrics(plan, found)
    told = allowed_numbers(plan, found, _allowing(*(name for name in found if name != left_out)))
    assert told == {name: found[name] for name in found if name != left_out and not name.startswith("histogram")}
    check_metrics(plan, told)


@pytest.mark.parametrize(
    ("patterns", "tables"),
    [
        (("num_images", "num_exams", "num_patients", "num_images_by_view/*"), {"view"}),
        (("num_images_by_view/*",), set()),
        (("num_*",), {table.by for table in TABLES}),
    ],
)
def test_counts_leave_table_by_table(patterns: tuple[str, ...], tables: set[str]) -> None:
    told = allowed_numbers(make_plan(None, kind="query"), TOLD, _allowing(*patterns))
    check_counts(told)
    for table in TABLES:
        hidden = told[table.suppressed] == len(table.words)
        assert hidden == (table.by not in tables or TOLD[table.suppressed] == len(table.words)), table.by


def test_a_visit_under_way_tells_a_few_digits_of_what_is_allowed() -> None:
    progress = Progress(epoch=-3, step=10**12, num_steps=7, loss=1.23456789, samples_per_s=float("nan"))
    assert told_progress(progress, PolicySettings()) == {
        "epoch": 0,
        "step": 10**8,
        "num_steps": 7,
        "loss": 1.235,
        "samples_per_s": 0.0,
        "steps_per_s": 0.0,
    }
    assert set(told_progress(progress, _allowing("samples_per_s"))) == {"epoch", "step", "num_steps", "samples_per_s"}
    assert told_progress(progress, None) == {}, "while the policy cannot be read"
