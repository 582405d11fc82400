"""Schedules as data: what they say, and what is refused because it would have no effect or no meaning."""

from typing import Any

import pytest
from pydantic import ValidationError

from mammofed_shared.config.schedule import ScheduleSettings

SITES = ("central", "mayo", "emory")
ADAM = {"name": "fedadam", "server_learning_rate": 0.01}


def _schedule(**values: Any) -> ScheduleSettings:
    found = ScheduleSettings.model_validate({"rounds": 6, **values})
    found.check_sites(SITES)
    return found


def _complaint(**values: Any) -> str:
    with pytest.raises(ValueError) as caught:
        _schedule(**values)
    return str(caught.value)


def test_the_simple_form_is_one_phase() -> None:
    (phase,) = _schedule(kind="fedavg", epochs=2, strategy=ADAM).each_phase
    assert (phase.kind, phase.rounds, phase.epochs, phase.strategy.name) == ("fedavg", 6, 2, "fedadam")


def test_the_last_phase_has_the_rounds_that_are_left() -> None:
    schedule = _schedule(phases=[{"rounds": 2}, {"kind": "fedavg", "rounds": 1}, {"kind": "fedavg", "strategy": ADAM}])
    assert [phase.rounds for phase in schedule.each_phase] == [2, 1, 3]


def test_a_schedule_is_the_same_after_it_was_written_down() -> None:
    for schedule in (_schedule(), _schedule(order="seeded", phases=[{"rounds": 2}, {"kind": "fedavg"}])):
        again = ScheduleSettings.model_validate_json(schedule.model_dump_json())
        assert again == schedule and again.each_phase == schedule.each_phase


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"strategy": ADAM}, "strategy fedadam needs kind: fedavg"),
        ({"strategy": {"name": "fedavg", "clip_norm": 1}}, "there is no mean, and nothing to clip"),
        ({"kind": "fedavg", "strategy": {"name": "fedavg", "mu": 1}}, "Extra inputs are not permitted"),
        ({"kind": "fedavg", "strategy": {"name": "fedprox"}}, "Field required"),
        ({"kind": "fedavg", "strategy": {"name": "fedprox", "mu": 0}}, "greater than 0"),
        ({"kind": "fedavg", "strategy": {"name": "fedadam"}}, "Field required"),
        ({"kind": "fedavg", "strategy": {"name": "scaffold"}}, "scaffold counts all sites alike: write weighting"),
        ({"kind": "fedavg", "strategy": {"name": "trimmed-mean"}}, "counts all sites alike: write weighting: equal"),
        (
            {"kind": "fedavg", "weighting": "equal", "strategy": {"name": "scaffold", "clip_norm": 1}},
            "Extra inputs are not permitted",
        ),
        (
            {"kind": "fedavg", "weighting": "equal", "strategy": {"name": "trimmed-mean"}},
            "trim 0.2 of 3 sites is none; write at least 0.334",
        ),
        (
            {
                "kind": "fedavg",
                "weighting": "equal",
                "order": ["central", "mayo"],
                "strategy": {"name": "trimmed-mean", "trim": 0.4},
            },
            "needs at least 3 sites, 2 train at once",
        ),
        ({"order": "sorted"}, "expected a list of sites, `seeded` or `by-size`"),
        ({"kind": "fedavg", "order": "seeded"}, "seeded has no effect in fedavg"),
        ({"order": "by-size", "epochs": [1, 2, 3]}, "epochs is a list, which belongs to a listed order"),
        ({"phases": [{"rounds": 2}, {"kind": "fedavg", "rounds": 3}]}, "5 rounds stand in the phases, rounds is 6"),
        ({"phases": [{"rounds": 6}, {"kind": "fedavg"}]}, "which leaves none for the last phase"),
        ({"phases": [{"rounds": 7}, {"kind": "fedavg"}]}, "7 rounds stand in the phases, rounds is 6"),
        ({"phases": [{}, {"kind": "fedavg", "rounds": 3}]}, "only the last phase may leave out its rounds"),
        ({"kind": "fedavg", "phases": [{}]}, "kind has no effect beside phases"),
        ({"weighting": "equal", "phases": [{}]}, "weighting has no effect beside phases"),
        ({"order": "seeded", "phases": [{"kind": "fedavg"}]}, "seeded has no effect where no phase is alternating"),
        ({"phases": [{"order": ["unc"]}]}, "order names 'unc', which is not one of sites"),
        (
            {"phases": [{"rounds": 2}, {"kind": "fedavg", "weighting": "equal", "strategy": {"name": "scaffold"}}]},
            "scaffold cannot be one of several phases",
        ),
    ],
)
def test_what_has_no_effect_or_no_meaning_is_refused(values: dict[str, Any], said: str) -> None:
    assert said in _complaint(**values)


def test_a_trim_that_leaves_one_of_three_is_taken() -> None:
    schedule = _schedule(kind="fedavg", weighting="equal", strategy={"name": "trimmed-mean", "trim": 0.334})
    assert schedule.each_phase[0].kind == "fedavg"


def test_a_quorum_of_which_a_trimmed_mean_would_leave_out_nobody_is_refused() -> None:
    schedule = _schedule(kind="fedavg", weighting="equal", strategy={"name": "trimmed-mean", "trim": 0.34})
    schedule.check_quorum(3)
    with pytest.raises(ValueError, match=r"quorum is 2, of which strategy trimmed-mean with trim 0\.34 leaves"):
        schedule.check_quorum(2)


def test_a_schedule_says_itself_in_words() -> None:
    assert _schedule(phases=[{"rounds": 2}, {"kind": "fedavg", "strategy": ADAM}]).in_words == (
        "2 × alternating, then 4 × fedadam"
    )


def test_a_strategy_of_another_name_is_refused() -> None:
    with pytest.raises(ValidationError, match="does not match any of the expected tags"):
        _schedule(kind="fedavg", strategy={"name": "fedsgd"})
