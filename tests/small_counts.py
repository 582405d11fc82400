"""What a small hospital holds, exactly and as it may be told; for tests that train nothing."""

from mammofed_shared.protocol.quality import TABLES
from mammofed_site.disclosure import Cell, Counts, protect


def _cells(**num_patients: int) -> dict[str, Cell]:
    return {word: Cell(num=4 * num, num_patients=num) for word, num in num_patients.items()}


_FILLED = {
    "vendor": _cells(hologic=40, ge=21, siemens=2),
    "view": {word: Cell(num=126, num_patients=63) for word in ("cc", "mlo")},
    "intent": _cells(presentation=63),
    "preset": _cells(paper=63),
    "density": {word: Cell(num=num, num_patients=num) for word, num in (("a", 12), ("b", 31), ("c", 20))},
}
COUNTS = Counts(
    num_images=252,
    num_exams=63,
    num_patients=63,
    tables={table.by: {**dict.fromkeys(table.words, Cell()), **_FILLED[table.by]} for table in TABLES},
)
"""Two images of either view of each of 63 patients; those of Siemens are too few to be told."""
TOLD = protect(COUNTS, 10)
