"""Do as many patients fall ill as the risks say? Observed beside expected, from the lowest risks to the highest.

Shapes: N exams of one cell of risks.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.config.risk_metrics import TENTHS
from mammofed_shared.evaluation.cells import Cell, may_be_told
from mammofed_shared.evaluation.statistics import Values, estimated
from mammofed_shared.evaluation.survival import FollowUp, observed_risk


def calibration_numbers(risk_N: Values, follow_up: FollowUp, year: int, patients: Sequence[str]) -> dict[str, float]:
    """``expected``, the mean risk of so many years, and ``observed`` with its interval, by Kaplan–Meier."""

    def observed(weight_RN: Values) -> Values:
        return observed_risk(weight_RN, follow_up, year)[:, -1]

    return {"expected": float(risk_N.mean())} | estimated("observed", patients, observed)


def tenth_numbers(
    risk_N: Values, follow_up: FollowUp, year: int, patients: Sequence[str], least_cell: int
) -> dict[str, float]:
    """The same for each cell of neighbouring tenths of risk, with its counts: ``observed/q4``, ``num_positive/q4``, ….

    Exams that were lost before the year count as far as they were followed, but not in ``num_labelled``.
    """
    cells = merged_tenths(risk_N, follow_up, year, patients, least_cell)
    numbers: dict[str, float] = {}
    for name, chosen_N in cells.items():
        own = [patients[place] for place in np.flatnonzero(chosen_N).tolist()]
        found = calibration_numbers(risk_N[chosen_N], follow_up.of(chosen_N), year, own)
        found["num_positive"] = float((follow_up.cancers_by(year) & chosen_N).sum())
        found["num_labelled"] = float((follow_up.known_by(year) & chosen_N).sum())
        numbers |= {f"{word}/{name}": value for word, value in found.items()}
    return numbers


def merged_tenths(
    risk_N: Values, follow_up: FollowUp, year: int, patients: Sequence[str], least_cell: int
) -> dict[str, NDArray[np.bool_]]:
    """Exams of each cell, by the name of its last tenth: neighbours are merged, from the lowest risk on, until told.

    What is left over at the upper end goes with the last cell. Equal risks are in one tenth.

    Args:
        follow_up, patients: which together hold at least ``least_cell`` patients of either class.
    """
    tenth_N = tenths_of(risk_N)
    cells: dict[str, NDArray[np.bool_]] = {}
    begin = 0
    for tenth, name in enumerate(TENTHS):
        inside_N = (begin <= tenth_N) & (tenth_N <= tenth)
        whole = Cell(name, follow_up.cancers_by(year), follow_up.known_by(year))
        if may_be_told(whole.within(name, inside_N), patients, least_cell):
            cells[name], begin = inside_N, tenth + 1
    rest_N = tenth_N >= begin
    if rest_N.any():
        last = cells.popitem()[1] if cells else np.zeros_like(rest_N)
        cells[TENTHS[-1]] = last | rest_N
    return cells


def tenths_of(risk_N: Values) -> NDArray[np.intp]:
    """The tenth of each risk, 0 … 9, by the share of exams with a lower one."""
    num_lower_N = np.searchsorted(np.sort(risk_N), risk_N, side="left")
    return num_lower_N * len(TENTHS) // len(risk_N)
