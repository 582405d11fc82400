"""Who trains when: every turn of both schedules, their names and their progress."""

from pathlib import Path

import pytest

from mammofed_server.schedule import Schedule, make_schedule
from mammofed_shared.config.loading import load
from mammofed_shared.config.run import RunSettings, ScheduleSettings

SITES = ("central", "mayo", "emory")
PAPER = Path(__file__).parents[2] / "configs/run/paper.yaml"


def _sites_in_order(schedule: Schedule) -> list[str]:
    return [visit.site for turn in schedule.turns for visit in turn.visits]


def test_the_papers_preset_gives_six_epochs_over_central_and_mayo_in_turn() -> None:
    settings = load(PAPER, RunSettings)
    schedule = make_schedule(settings.schedule, settings.training_sites)
    assert _sites_in_order(schedule) == ["central", "mayo"] * 3
    assert [visit.epochs for turn in schedule.turns for visit in turn.visits] == [1] * 6
    assert [visit.epochs_before for turn in schedule.turns for visit in turn.visits] == [0, 1, 2, 3, 4, 5]
    assert schedule.epochs_total == 6


def test_alternating_sites_train_one_after_the_other() -> None:
    schedule = make_schedule(ScheduleSettings(kind="alternating", rounds=2, epochs=3), SITES)
    assert [len(turn.visits) for turn in schedule.turns] == [1] * 6
    assert _sites_in_order(schedule) == [*SITES, *SITES]
    assert [turn.number for turn in schedule.turns] == [1, 2, 3, 4, 5, 6]
    assert [turn.round for turn in schedule.turns] == [1, 1, 1, 2, 2, 2]
    assert [turn.visits[0].epochs_before for turn in schedule.turns] == [0, 3, 6, 9, 12, 15]
    assert schedule.epochs_total == 18


def test_a_site_may_train_twice_in_a_round_of_the_alternating_schedule() -> None:
    schedule = make_schedule(ScheduleSettings(rounds=1), ("mayo", "central", "mayo"))
    assert _sites_in_order(schedule) == ["mayo", "central", "mayo"]
    assert len({turn.visits[0].task_id("run") for turn in schedule.turns}) == 3


def test_fedavg_sites_train_at_once_from_the_same_progress() -> None:
    schedule = make_schedule(ScheduleSettings(kind="fedavg", rounds=4, epochs=2), SITES)
    assert [turn.number for turn in schedule.turns] == [turn.round for turn in schedule.turns] == [1, 2, 3, 4]
    for turn in schedule.turns:
        assert [visit.site for visit in turn.visits] == list(SITES)
        assert {visit.epochs_before for visit in turn.visits} == {2 * (turn.number - 1)}
        assert {visit.epochs for visit in turn.visits} == {2}
    assert schedule.epochs_total == 8, "sites that train at once advance the run once"


@pytest.mark.parametrize("kind", ["alternating", "fedavg"])
def test_progress_runs_from_nothing_to_the_whole_without_a_gap(kind: str) -> None:
    schedule = make_schedule(ScheduleSettings.model_validate({"kind": kind, "rounds": 5, "epochs": 2}), SITES)
    reached = 0
    for turn in schedule.turns:
        assert {visit.epochs_before for visit in turn.visits} == {reached}
        reached += turn.visits[0].epochs
    assert reached == schedule.epochs_total


@pytest.mark.parametrize("kind", ["alternating", "fedavg"])
def test_visits_are_numbered_through_and_named_apart(kind: str) -> None:
    schedule = make_schedule(ScheduleSettings.model_validate({"kind": kind, "rounds": 2}), SITES)
    visits = [visit for turn in schedule.turns for visit in turn.visits]
    assert [visit.number for visit in visits] == [1, 2, 3, 4, 5, 6]
    assert [visit.task_id("demo") for visit in visits][:2] == [
        "demo/r0001/v00001/central/train",
        "demo/r0001/v00002/mayo/train",
    ]
    assert len({visit.task_id("demo") for visit in visits}) == 6


def test_a_schedule_is_the_same_after_a_restart() -> None:
    settings = ScheduleSettings(kind="fedavg", rounds=3)
    assert make_schedule(settings, SITES) == make_schedule(settings, SITES)


def test_each_visit_of_a_round_may_have_its_own_number_of_epochs() -> None:
    schedule = make_schedule(ScheduleSettings(rounds=2, epochs=(2, 1)), ("central", "mayo"))
    visits = [turn.visits[0] for turn in schedule.turns]
    assert [(visit.site, visit.epochs, visit.epochs_before) for visit in visits] == [
        ("central", 2, 0),
        ("mayo", 1, 2),
        ("central", 2, 3),
        ("mayo", 1, 5),
    ]
    assert schedule.epochs_total == 6
