"""The counts that every site tells before a run's first turn: their closed list of names, and the check of the numbers.

A cell is a number ``num_images_by_vendor/hologic``; a cell that is not told is absent, and ``num_suppressed_by_vendor``
says how many of a table's cells are. A site makes them by ``mammofed_site/disclosure.py``; this check is made where
they leave and again where they arrive, so that nothing else can pass for a count.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mammofed_shared.config.vendors import VENDORS
from mammofed_shared.errors import RefusalCode, Refused

STEP = 5
"""What is told is rounded to a multiple of it."""
MOST = 10**9
"""No site has more images; a larger number would be something else in a count's clothes."""


@dataclass(frozen=True, slots=True)
class CountTable:
    """A one-way table: what is counted, by which property, and every word that the property can have."""

    unit: str
    by: str
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the cells' names have in common."""
        return f"num_{self.unit}_by_{self.by}"

    @property
    def suppressed(self) -> str:
        """Name of the number of cells that are not told."""
        return f"num_suppressed_by_{self.by}"

    def cell(self, word: str) -> str:
        """Name of a cell."""
        return f"{self.name}/{word}"


TABLES = (
    CountTable("images", "vendor", VENDORS),
    CountTable("images", "view", ("cc", "mlo")),
    CountTable("images", "intent", ("presentation", "unsaid")),
    CountTable("images", "preset", ("paper", "voi", "percentile")),
    CountTable("exams", "density", ("a", "b", "c", "d", "unknown")),
)
"""Each table's cells add up to the total of its unit, so every image and exam has its word: hence ``unknown``."""
TOTALS = ("num_images", "num_exams", "num_patients")

_COUNTS = frozenset(TOTALS) | {table.cell(word) for table in TABLES for word in table.words}
_NAMES = _COUNTS | {table.suppressed for table in TABLES}


def check_counts(numbers: Mapping[str, float]) -> None:
    """Refuse numbers that are not a site's protected counts.

    Raises:
        Refused: METRIC_NOT_ALLOWED: a name is not on the list, a value is no rounded count, or a table is not whole.
    """
    for name, value in numbers.items():
        if name not in _NAMES:
            raise _refused("a number is not on the list of counts")
        if not (math.isfinite(value) and 0 <= value <= MOST and value == int(value)):
            raise _refused(f"{name} is not a count")
        if name in _COUNTS and value % STEP:
            raise _refused(f"{name} is not rounded to {STEP}")
    for table in TABLES:
        _check_table(table, numbers)
    told = [name in numbers for name in TOTALS]
    if any(told) != all(told) or (not any(told) and _COUNTS & set(numbers)):
        raise _refused("totals are told all together, and no cell without them")


def _check_table(table: CountTable, numbers: Mapping[str, float]) -> None:
    """A hidden cell is counted and never alone: the total would tell it."""
    hidden = sum(table.cell(word) not in numbers for word in table.words)
    if numbers.get(table.suppressed) != hidden or hidden == 1:
        raise _refused(f"{table.suppressed} does not fit the cells that are told")


def _refused(message: str) -> Refused:
    return Refused(RefusalCode.METRIC_NOT_ALLOWED, message)
