"""Which cells are told together: an attacker who subtracts what is told finds nobody, or enough patients."""

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mammofed_shared.evaluation.cells import Cell, may_be_told, num_patients, told_cells, told_groups
from mammofed_shared.evaluation.survival import FollowUp

EXAMS = st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.integers(0, 60)), min_size=1, max_size=120)
LEAST = st.integers(2, 6)


def years(follow_up: FollowUp) -> list[Cell]:
    """The cells of years 5 to 1."""
    return [Cell(f"year{year}", follow_up.cancers_by(year), follow_up.known_by(year)) for year in (5, 4, 3, 2, 1)]


def cell_of(num_cancers: int, num_free: int) -> Cell:
    """A cell whose first exams are the cancers."""
    cancer_N = np.arange(num_cancers + num_free) < num_cancers
    return Cell("year5", cancer_N, np.ones_like(cancer_N))


def strangers(num: int) -> list[str]:
    """One patient an exam."""
    return [f"p{number}" for number in range(num)]


def test_a_cell_needs_enough_patients_of_either_class() -> None:
    assert may_be_told(cell_of(3, 5), strangers(8), 3)
    assert not may_be_told(cell_of(2, 5), strangers(7), 3)
    assert not may_be_told(cell_of(5, 2), strangers(7), 3)
    assert not may_be_told(cell_of(3, 5), ["a", "a", "b", "c", "d", "e", "f", "g"], 3), "three exams of two patients"


def test_a_year_that_adds_two_cancers_is_not_told_beside_the_other() -> None:
    # Cancers: ten in year 1, two in year 2, ten in year 5; 30 are followed for all of them.
    found = [*[1] * 10, *[2] * 2, *[5] * 10]
    follow_up = FollowUp(np.array([*found, *[9] * 30]), np.arange(52) < len(found))
    told = told_cells(years(follow_up), strangers(52), 3)
    # Years 2 to 4 have the same cancers, and nobody was lost between them: their difference is nobody.
    assert [cell.name for cell in told] == ["year5", "year4", "year3", "year2"]
    assert [cell.name for cell in told_cells(years(follow_up)[::-1], strangers(52), 3)] == ["year1", "year5"]
    assert [cell.name for cell in told_cells(years(follow_up), strangers(52), 2)] == [
        "year5",
        "year4",
        "year3",
        "year2",
        "year1",
    ]


def test_a_year_that_loses_one_patient_is_not_told_beside_the_other() -> None:
    follow_up = FollowUp(np.array([*[1] * 10, 4, *[9] * 30]), np.arange(41) < 10)
    assert [cell.name for cell in told_cells(years(follow_up), strangers(41), 3)] == ["year5"]


@given(EXAMS, LEAST)
def test_no_difference_of_two_told_years_is_of_a_few_patients(exams: list[tuple[int, bool, int]], least: int) -> None:
    follow_up = FollowUp(np.array([year for year, _, _ in exams]), np.array([found for _, found, _ in exams]))
    patients = [str(patient) for _, _, patient in exams]
    told = told_cells(years(follow_up), patients, least)
    for one, other in combinations(told, 2):
        for first_N, second_N in (
            (one.cancers, other.cancers),
            (one.free, other.free),
            (one.known, other.known),
        ):
            for exams_N in (first_N & ~second_N, second_N & ~first_N):
                assert not 0 < num_patients(exams_N, patients) < least
    if told:
        assert all(num_patients(exams_N, patients) >= least for exams_N in (told[0].cancers, told[0].free))


def test_with_a_group_that_is_too_small_goes_the_next_smallest() -> None:
    # Density a: 1 cancer of 8; b: 4 of 10; c: 5 of 20; d: 6 of 30.
    sizes = {"density-a": (1, 7), "density-b": (4, 6), "density-c": (5, 15), "density-d": (6, 24)}
    group_of = [name for name, (cancers, _) in sizes.items() for _ in range(cancers)]
    group_of += [name for name, (_, free) in sizes.items() for _ in range(free)]
    told, left_out = told_groups(cell_of(16, 52), group_of, strangers(68), 3)
    assert set(told) == {"density-c", "density-d"} and left_out == {"density-a", "density-b"}
    assert told["density-c"].cancers.sum() == 5 and told["density-c"].known.sum() == 20


def test_exams_of_no_group_hide_a_small_one_if_they_are_enough() -> None:
    small: list[str | None] = ["density-a", *["density-b"] * 5, *[None] * 3, *["density-a"] * 5, *["density-b"] * 9]
    told, left_out = told_groups(cell_of(9, 14), small, strangers(23), 3)
    assert set(told) == {"density-b"} and left_out == {"density-a"}
    few = [name if name is not None else "density-b" for name in small]
    assert told_groups(cell_of(9, 14), few, strangers(23), 3) == ({}, {"density-a", "density-b"})


def test_where_every_group_is_large_all_are_told_and_one_group_alone_is_the_whole() -> None:
    told, left_out = told_groups(cell_of(6, 20), ["age-40-49"] * 26, strangers(26), 3)
    assert set(told) == {"age-40-49"} and left_out == set()
    assert told_groups(cell_of(6, 20), [None] * 26, strangers(26), 3) == ({}, set())


@given(EXAMS, st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=120, max_size=120), LEAST)
def test_the_total_less_the_told_groups_is_nobody_or_enough_patients(
    exams: list[tuple[int, bool, int]], groups: list[str | None], least: int
) -> None:
    patients = [str(patient) for _, _, patient in exams]
    cancer_N = np.array([found for _, found, _ in exams])
    cell = Cell("year5", cancer_N, np.ones_like(cancer_N))
    told, left_out = told_groups(cell, groups[: len(exams)], patients, least)
    assert set(told) | left_out == set(groups[: len(exams)]) - {None} and not set(told) & left_out
    for group in told.values():
        assert num_patients(group.cancers, patients) >= least and num_patients(group.free, patients) >= least
    if told:
        seen_N = np.any([group.known for group in told.values()], axis=0)
        for exams_N in (cell.cancers & ~seen_N, cell.free & ~seen_N):
            assert not 0 < num_patients(exams_N, patients) < least
