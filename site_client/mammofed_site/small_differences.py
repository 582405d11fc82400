"""Counts of a risk task that could be subtracted from each other: what a look at the numbers alone can show. Pure.

The worker leaves such counts out (``evaluation/cells.py``), because it alone knows the patients. A few exams are of no
more patients, so what is refused here is always of too few.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import combinations

from mammofed_shared.config.risk_metrics import GROUPS

_OF_A_YEAR = re.compile(r"((?:received/|sent/)?)num_positive/(year\d|outcome)((?:/d\d+)?)")
"""Of one year, or of all exams of which anything is known; of a validation, per data set."""


def small_difference(numbers: Mapping[str, float], least_cell: int) -> str | None:
    """The name of a count that differs from another by some exams, but fewer than ``least_cell``; None without any."""
    for name, difference in (*_between_years(numbers), *_beside_groups(numbers)):
        if 0 < abs(difference) < least_cell:
            return name
    return None


def _between_years(numbers: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Cancers and known exams by which years of the same exams differ."""
    of_same_exams: dict[tuple[str, str], list[str]] = {}
    for name in numbers:
        if found := _OF_A_YEAR.fullmatch(name):
            of_same_exams.setdefault((found[1], found[3]), []).append(name)
    for names in of_same_exams.values():
        for one, other in combinations(names, 2):
            yield one, numbers[one] - numbers[other]
            yield one, _known(numbers, one) - _known(numbers, other)


def _beside_groups(numbers: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Exams of a year, with and without cancer, that are in no told group of a family."""
    for whole in [name for name in numbers if _OF_A_YEAR.fullmatch(name)]:
        for groups in GROUPS.values():
            told = [name for name in (f"{whole}/{group}" for group in groups) if name in numbers]
            if told:
                positive = numbers[whole] - sum(numbers[name] for name in told)
                known = _known(numbers, whole) - sum(_known(numbers, name) for name in told)
                yield whole, positive
                yield whole, known - positive


def _known(numbers: Mapping[str, float], name: str) -> float:
    return numbers.get(name.replace("num_positive/", "num_labelled/"), 0.0)
