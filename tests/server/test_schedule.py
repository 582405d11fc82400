"""Who trains when: every turn of every schedule, their names and their progress."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammofed_server.run_state import QualityRecord, RunState
from mammofed_server.schedule import Schedule, make_schedule
from mammofed_shared.config.loading import load
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.schedule import ScheduleSettings
from runs import begin_small_run
from small_counts import TOLD

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


# ── phases ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _hybrid(**values: Any) -> ScheduleSettings:
    phases = [{"kind": "alternating", "rounds": 2}, {"kind": "fedavg", "epochs": 2}]
    return ScheduleSettings.model_validate({"rounds": 3, "phases": phases, **values})


def test_a_hybrid_schedule_goes_from_one_phase_to_the_next() -> None:
    schedule = make_schedule(_hybrid(), SITES)
    assert [len(turn.visits) for turn in schedule.turns] == [1] * 6 + [3]
    assert [turn.round for turn in schedule.turns] == [1, 1, 1, 2, 2, 2, 3]
    assert [turn.phase_number for turn in schedule.turns] == [1] * 6 + [2]
    assert [turn.phase.kind for turn in schedule.turns] == ["alternating"] * 6 + ["fedavg"]
    assert [turn.visits[0].epochs_before for turn in schedule.turns] == [0, 1, 2, 3, 4, 5, 6]
    assert [visit.number for turn in schedule.turns for visit in turn.visits] == list(range(1, 10))
    assert schedule.epochs_total == 8
    assert {visit.epochs_total for turn in schedule.turns for visit in turn.visits} == {8}


def test_the_order_of_a_schedule_holds_for_its_phases_that_name_none() -> None:
    schedule = make_schedule(_hybrid(order=["emory", "central", "emory"]), SITES)
    assert _sites_in_order(schedule) == ["emory", "central", "emory"] * 2 + ["emory", "central"]


# ── orders that are decided by files ────────────────────────────────────────────────────────────────────────────────


def test_the_seeded_order_is_another_each_round_the_same_after_a_restart_and_of_the_seed() -> None:
    settings = ScheduleSettings.model_validate({"rounds": 30, "order": "seeded"})
    first, again, other = (_sites_in_order(make_schedule(settings, SITES, seed=seed)) for seed in (1, 1, 2))
    rounds = [tuple(first[start : start + 3]) for start in range(0, 90, 3)]
    assert first == again != other
    assert {frozenset(order) for order in rounds} == {frozenset(SITES)}
    assert len(set(rounds)) == 6, "every permutation of three sites comes up in thirty rounds"


def test_by_size_the_site_that_told_the_most_exams_comes_first_and_one_that_told_none_last() -> None:
    settings = ScheduleSettings.model_validate({"rounds": 2, "order": "by-size"})
    schedule = make_schedule(settings, SITES, sizes={"mayo": 500.0, "emory": 1000.0})
    assert _sites_in_order(schedule) == ["emory", "mayo", "central"] * 2
    unknown = make_schedule(settings, SITES)
    assert _sites_in_order(unknown) == [*SITES, *SITES]
    assert (len(unknown.turns), unknown.epochs_total) == (len(schedule.turns), schedule.epochs_total)


def test_a_run_orders_its_sites_by_what_its_files_say(tmp_path: Path) -> None:
    run = begin_small_run(tmp_path, schedule={"kind": "alternating", "rounds": 1, "order": "by-size"})
    assert _sites_in_order(run.schedule()) == ["central", "mayo"]
    run.commit_quality(QualityRecord(counts={"central": TOLD | {"num_exams": 5.0}, "mayo": TOLD | {"num_exams": 10.0}}))
    assert _sites_in_order(RunState.open(tmp_path).schedule()) == ["mayo", "central"]


# ── members that join and leave ─────────────────────────────────────────────────────────────────────────────────────

_MEMBERS = st.lists(st.sets(st.sampled_from(["central", "mayo", "emory", "unc"]), min_size=1), min_size=4, max_size=4)
_PLANS = st.sampled_from(
    [
        {"rounds": 4},
        {"rounds": 4, "kind": "fedavg", "epochs": 2},
        {"rounds": 4, "order": "seeded", "epochs": 3},
        {"rounds": 4, "order": ["mayo", "central", "mayo"], "epochs": [2, 1, 4]},
        {"rounds": 4, "phases": [{"kind": "alternating", "rounds": 1}, {"kind": "fedavg"}]},
    ]
)


def _schedule_of(values: dict[str, Any], members: list[set[str]]) -> Schedule:
    def in_round(number: int) -> tuple[str, ...]:
        return tuple(site for site in (*SITES, "unc") if site in members[number - 1])

    return make_schedule(ScheduleSettings.model_validate(values), SITES, members=in_round, seed=3)


@settings(deadline=None)
@given(_PLANS, _MEMBERS, st.integers(1, 4))
def test_what_a_round_asks_for_does_not_depend_on_who_joins_or_leaves_later(
    values: dict[str, Any], members: list[set[str]], until: int
) -> None:
    whole = _schedule_of(values, members)
    known = _schedule_of(values, members[:until] + members[until - 1 : until] * (4 - until))
    assert [turn for turn in whole.turns if turn.round <= until] == [t for t in known.turns if t.round <= until]


@settings(deadline=None)
@given(_PLANS, _MEMBERS)
def test_progress_has_no_gap_and_ends_at_the_whole_whoever_joins_or_leaves(
    values: dict[str, Any], members: list[set[str]]
) -> None:
    schedule = _schedule_of(values, members)
    reached = 0
    for number, turn in enumerate(schedule.turns, start=1):
        assert turn.number == number
        assert {visit.epochs_before for visit in turn.visits} == {reached}
        assert {visit.site for visit in turn.visits} <= members[turn.round - 1]
        reached += turn.visits[0].epochs
        assert all(visit.epochs_before + visit.epochs <= visit.epochs_total for visit in turn.visits)
    assert reached == schedule.epochs_total
    if schedule.turns and schedule.turns[-1].round == 4:
        assert schedule.turns[-1].visits[0].epochs_total == reached
    numbers = [visit.number for turn in schedule.turns for visit in turn.visits]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_site_that_joins_trains_after_the_listed_ones_and_one_that_leaves_no_more() -> None:
    values = {"rounds": 2, "order": ["mayo", "central", "mayo"], "epochs": [2, 1, 4]}
    schedule = _schedule_of(values, [{"central", "mayo", "emory"}, {"mayo", "unc"}, set(), set()])
    visits = [(visit.round, visit.site, visit.epochs) for turn in schedule.turns for visit in turn.visits]
    assert visits[:3] == [(1, "mayo", 2), (1, "central", 1), (1, "mayo", 4)], "emory only evaluates"
    assert visits[3:] == [(2, "mayo", 2), (2, "mayo", 4), (2, "unc", 4)]
    assert [turn.visits[0].epochs_total for turn in schedule.turns] == [14, 14, 14, 17, 17, 17]
