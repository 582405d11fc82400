"""Which counts of cancers a site may tell beside each other, so that no difference of two is of a few patients. Pure.

A *cell* is a set of exams of which it is known whether cancer was found. It may be told where at least ``least_cell``
patients stand behind its cancers and as many behind the rest. Cells that hold each other can be subtracted:

1. Years are told one after another, the most important first, and only those whose cancers and whose known exams
   differ from those of every year told before by nobody or by at least ``least_cell`` patients.
2. Of a family of groups (density A to D, …) the smallest are left out until those left out, together with the exams
   that are in no group, are nobody or at least ``least_cell`` patients with and as many without cancer. So where one
   group is too small, the next smallest goes with it: the year's total would tell it otherwise.

Shapes: N exams.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Cell:
    """Exams as masks (N,) over all of them: those with cancer, and all of which it is known."""

    name: str
    cancers: Mask
    known: Mask

    def within(self, name: str, chosen_N: Mask) -> "Cell":
        """A part of the cell."""
        return Cell(name, self.cancers & chosen_N, self.known & chosen_N)

    @property
    def free(self) -> Mask:
        """Exams without cancer."""
        return self.known & ~self.cancers


def may_be_told(cell: Cell, patients: Sequence[str], least_cell: int) -> bool:
    """Whether enough patients stand behind either class."""
    return all(num_patients(exams_N, patients) >= least_cell for exams_N in (cell.cancers, cell.free))


def told_cells(cells: Sequence[Cell], patients: Sequence[str], least_cell: int) -> list[Cell]:
    """Those that may be told together (rule 1).

    Args:
        cells: of overlapping exams, the most important first.
        patients: one of each exam.
    """
    told: list[Cell] = []
    for cell in cells:
        is_apart = all(_are_apart(cell, other, patients, least_cell) for other in told)
        if is_apart and may_be_told(cell, patients, least_cell):
            told.append(cell)
    return told


def told_groups(
    cell: Cell, group_of: Sequence[str | None], patients: Sequence[str], least_cell: int
) -> tuple[dict[str, Cell], set[str]]:
    """The groups of one family that may be told beside the whole cell (rule 2), and those that are left out.

    Args:
        cell: the whole, told itself.
        group_of: of each exam; None where it is in none. A group without a known exam does not exist.
    """
    names = sorted({name for name, known in zip(group_of, cell.known, strict=True) if known and name is not None})
    groups = {name: cell.within(name, np.array([own == name for own in group_of])) for name in names}
    told = {name: group for name, group in groups.items() if may_be_told(group, patients, least_cell)}
    while told and not _is_rest_hidden(cell, told, patients, least_cell):
        del told[min(told, key=lambda name: (num_patients(told[name].known, patients), name))]
    return told, set(groups) - set(told)


def num_patients(exams_N: Mask, patients: Sequence[str]) -> int:
    """Number of different patients behind some exams."""
    return len({patients[place] for place in np.flatnonzero(exams_N).tolist()})


def _are_apart(one: Cell, other: Cell, patients: Sequence[str], least_cell: int) -> bool:
    pairs = ((one.cancers, other.cancers), (one.known, other.known))
    differences = [exams_N for first_N, second_N in pairs for exams_N in (first_N & ~second_N, second_N & ~first_N)]
    return all(_is_nobody_or_many(exams_N, patients, least_cell) for exams_N in differences)


def _is_rest_hidden(cell: Cell, told: Mapping[str, Cell], patients: Sequence[str], least_cell: int) -> bool:
    is_told_N = np.any([group.known for group in told.values()], axis=0)
    rest = (cell.cancers & ~is_told_N, cell.free & ~is_told_N)
    return all(_is_nobody_or_many(exams_N, patients, least_cell) for exams_N in rest)


def _is_nobody_or_many(exams_N: Mask, patients: Sequence[str], least_cell: int) -> bool:
    return not exams_N.any() or num_patients(exams_N, patients) >= least_cell
