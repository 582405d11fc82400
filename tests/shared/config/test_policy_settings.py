"""A hospital's policy as it is written: hours of the week, a file of its own, and what is refused."""

from datetime import datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from mammofed_shared.config.hours import is_within, read_window
from mammofed_shared.config.loading import load
from mammofed_shared.config.policy import PolicySettings
from mammofed_shared.errors import ConfigurationError

MONDAY = 24  # of August 2026


def _at(day: int, time: str) -> datetime:
    hours, minutes = map(int, time.split(":"))
    return datetime(2026, 8, MONDAY + day, hours, minutes)


@pytest.mark.parametrize(
    ("window", "day", "time", "within"),
    [
        ("mon-fri 20:00-06:00", 0, "19:59", False),
        ("mon-fri 20:00-06:00", 0, "20:00", True),
        ("mon-fri 20:00-06:00", 5, "05:59", True),
        ("mon-fri 20:00-06:00", 5, "06:00", False),
        ("mon-fri 20:00-06:00", 0, "05:00", False),
        ("sun 22:00-02:00", 0, "01:30", True),
        ("sun 22:00-02:00", 6, "01:30", False),
        ("sat-mon,wed 00:00-24:00", 6, "23:59", True),
        ("sat-mon,wed 00:00-24:00", 1, "00:00", False),
        ("tue 08:00-08:00", 2, "07:59", True),
    ],
)
def test_a_window_holds_its_hours_and_lasts_over_midnight(window: str, day: int, time: str, within: bool) -> None:
    assert _at(0, "00:00").weekday() == 0
    assert is_within([read_window(window)], _at(day, time)) is within


@pytest.mark.parametrize(
    "window", ["20:00-06:00", "mon 8:00-9:00", "mon 24:00-01:00", "mon 08:00-24:30", "mond 08:00-09:00"]
)
def test_what_is_no_window_is_refused(window: str) -> None:
    with pytest.raises(ValueError, match="hours:"):
        read_window(window)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("task: [pretrain]", "line 1, task: unknown key; did you mean 'tasks'?"),
        ("tasks: [pretrian]", "'pretrian' is no task; there are pretrain, text"),
        ("runs: []", "runs"),
        ("hours: [mon-fri 20-6]", "expected days and times such as"),
        ("hours: [20:00-06:00]", "expected days and times such as"),
        ("time_zone: Europe/Roma", "write one such as Europe/Rome"),
        ("largest_update_norm: .nan", "largest_update_norm"),
        ("{file: other.yaml, runs: [one]}", "the file holds all of it; move runs there"),
    ],
)
def test_a_policy_that_is_wrong_is_refused_with_its_key(tmp_path: Path, written: str, said: str) -> None:
    (tmp_path / "policy.yaml").write_text(written)
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path / "policy.yaml", PolicySettings)
    assert said in str(caught.value)


def test_a_text_in_the_place_of_a_policy_is_its_file() -> None:
    policy = PolicySettings.model_validate("/etc/mammofed/policy.yaml")
    assert policy.file == Path("/etc/mammofed/policy.yaml")
    assert PolicySettings.model_validate_json(policy.model_dump_json()) == policy, "also after it was passed on as JSON"
    with pytest.raises(ValidationError):
        PolicySettings(file=Path("policy.yaml"), least_cell=2)


def test_the_example_and_its_document_show_every_rule() -> None:
    root = Path(__file__).parents[3]
    example = load(root / "configs/policy/example.yaml", PolicySettings)
    table = (root / "docs/operate/policy.md").read_text()
    rules = set(PolicySettings.model_fields) - {"file"}
    assert example.model_fields_set == rules
    assert {rule for rule in rules if f"`{rule}`" not in table} == set()
