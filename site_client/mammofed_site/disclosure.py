"""Which of a site's counts may be told, and how coarsely: pure, and all of it in one place.

1. *Small* is a cell that fewer patients stand behind than the site's ``policy.least_cell``, but some. The rule counts
   patients, not images: 12 images may be one woman's three exams.
2. With the small cells of a table go all cells that have as many patients as its smallest other cell. So the hidden
   cells are exactly those with 1 to x patients, where x is at least the least cell.
3. A table in which no image is left to tell goes altogether, empty cells included, and counts all its cells as hidden.
   With fewer patients in all than the least cell every table goes, and so do the totals.
4. What remains is rounded to the nearest 5.

What this guarantees, even to a reader who knows this method, the least cell, the exact totals and the exact value of
every cell that is told:

*Exchange the words of two hidden cells in the hospital's data, and the same numbers leave*: rule 2 looks at sizes only,
and 1 to x are the same sizes under any names. So nothing that leaves says which hidden cell is which; and as one of
them has x patients, **no hidden cell can be told to be small**. Of a table that went altogether any two cells can be
exchanged, an empty one too; and where all its cells are small, the same numbers leave had any one cell all images but
one.

Less would not do. Hide the small cells alone, and 490 images in all with five vendors told as 100 each leave exactly 1
for each of two hidden vendors (a told 100 is at least 98, a told 490 at most 492); hide one other cell of several that
are equal, and which one it was tells something.

What it does not guarantee: two releases of data that differ by one patient can differ. One release for equal data
(``released_counts.py``) keeps a coordinator from asking until rounding is undone; a hospital grows all the same.
"""

import hashlib
from collections.abc import Mapping

from pydantic import Field, model_validator

from mammofed_shared.config.base import Settings
from mammofed_shared.protocol.quality import STEP, TABLES, TOTALS

COUNTED_FILE = "counted.json"
"""Exact counts, as the worker leaves them in its result; they stay at the site."""


class Cell(Settings):
    """One cell: how many images (or exams) it holds, and how many patients stand behind them."""

    num: int = Field(0, ge=0)
    num_patients: int = Field(0, ge=0)


class Counts(Settings):
    """Exact counts of a site's prepared data."""

    num_images: int = Field(ge=0)
    num_exams: int = Field(ge=0)
    num_patients: int = Field(ge=0)
    tables: Mapping[str, Mapping[str, Cell]]
    """Property (``CountTable.by``) → word → cell; every word of the table is there."""

    @model_validator(mode="after")
    def _only_known_words(self) -> "Counts":
        known = {table.by: set(table.words) for table in TABLES}
        if any(set(cells) - known.get(by, set()) for by, cells in self.tables.items()):
            raise ValueError("a table holds a word that is not its own")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of all that was counted: other data with these very counts would have the same answer anyway."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def protect(counts: Counts, least_cell: int) -> dict[str, float]:
    """The numbers that may leave, by their names in ``protocol/quality.py``."""
    is_told = counts.num_patients >= least_cell
    numbers = {name: _rounded(getattr(counts, name)) for name in TOTALS} if is_told else {}
    for table in TABLES:
        cells = counts.tables[table.by]
        patients = {word: cells[word].num_patients for word in table.words}
        hidden = hidden_words(patients, least_cell) if is_told else frozenset(table.words)
        numbers |= {table.cell(word): _rounded(cells[word].num) for word in table.words if word not in hidden}
        numbers[table.suppressed] = float(len(hidden))
    return numbers


def hidden_words(patients: Mapping[str, int], least_cell: int) -> frozenset[str]:
    """The cells of one table that are not told (rules 1 to 3).

    Args:
        patients: word → patients behind its cell; every word of the table.
        least_cell: a cell with fewer patients than this, but some, is small.
    """
    if not any(0 < num < least_cell for num in patients.values()):
        return frozenset()
    most = max(patients.values())
    limit = min((num for num in patients.values() if num >= least_cell), default=most)
    if limit == most:
        return frozenset(patients)
    return frozenset(word for word, num in patients.items() if 0 < num <= limit)


def _rounded(num: int) -> float:
    return float((num + STEP // 2) // STEP * STEP)
