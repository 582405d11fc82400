"""What a prepared data set holds, in numbers: one pass over each table, a column at a time."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mammofed_site.quality.batches import batches

NUM_GREY_BINS = 16
UNKNOWN = "not known"
"""Stands for an empty cell."""

_OF_IMAGES = ("vendor", "view", "laterality", "intent", "window")
_OF_EXAMS = ("density", "birads", "kind", "split", "text_origin")
_LONGEST = 10_000
"""Longer reports are counted as of so many words."""

Tally = NDArray[np.int64]
"""(2, n): values, each once and in order, and how often each was met."""
SIZE_BASE = 1 << 16
"""A size as one value: rows times this, plus columns; DICOM has 16 bits for either."""


@dataclass(slots=True)
class Counts:
    """Numbers of files, images and exams.

    ``words`` maps a column to its words and how many images or exams have each. ``sizes`` and ``grey`` are by vendor:
    stored sizes, and the sum over images of their shares of breast pixels in 16 bins of 0 to 255. ``report_lengths``
    has the number of texts with 0, 1, 2, … words.
    """

    num_images: int = 0
    num_exams: int = 0
    num_patients: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)
    scrubbed: Counter[str] = field(default_factory=Counter)
    words: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    sizes: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(lambda: np.zeros((2, 0), np.int64)))
    grey: defaultdict[str, NDArray[np.float64]] = field(
        default_factory=lambda: defaultdict(lambda: np.zeros(NUM_GREY_BINS))
    )
    report_lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_LONGEST + 1, np.int64))

    @property
    def num_refused(self) -> int:
        """Files that gave no image."""
        return self.refused.total()

    @property
    def num_files(self) -> int:
        """All files of the data set."""
        return self.num_images + self.num_refused

    @property
    def num_texts(self) -> int:
        """Exams that have a text to train on."""
        return int(self.report_lengths.sum())


def count(prepared: Path) -> Counts:
    """Count the tables of a prepared data set.

    Raises:
        DataError: a table is missing, or was written by another version.
    """
    counts = Counts()
    for batch in batches(prepared / "images.parquet", (*_OF_IMAGES, "rows", "columns", "flagged", "grey")):
        _count_images(counts, batch)
    for batch in batches(prepared / "exams.parquet", (*_OF_EXAMS, "num_words", "scrubbed")):
        _count_exams(counts, batch)
    for batch in batches(prepared / "refused.parquet", ("reason",)):
        counts.refused.update(_values(batch["reason"]))
    patients = [batch["patient"] for batch in batches(prepared / "exams.parquet", ("patient",))]
    counts.num_patients = int(pc.count_distinct(pa.chunked_array(patients, pa.string())).as_py())
    return counts


def _count_images(counts: Counts, batch: pa.RecordBatch) -> None:
    counts.num_images += batch.num_rows
    for column in _OF_IMAGES:
        counts.words[column].update(_values(batch[column]))
    counts.flagged.update(split_words(_values(batch["flagged"])))
    vendors = np.asarray(batch["vendor"].to_numpy(zero_copy_only=False), object)
    sizes = batch["rows"].to_numpy().astype(np.int64) * SIZE_BASE + batch["columns"].to_numpy()
    grey = pc.list_flatten(batch["grey"]).to_numpy().reshape(batch.num_rows, NUM_GREY_BINS)
    shares = grey / np.maximum(grey.sum(1, keepdims=True), 1)
    for vendor in sorted(set(vendors)):
        here = vendors == vendor
        counts.grey[vendor] += shares[here].sum(0)
        counts.sizes[vendor] = tallied(counts.sizes[vendor], sizes[here])


def tallied(tally: Tally, values: NDArray[np.int64]) -> Tally:
    """A tally with more values; as arrays, since film has a size for every sheet and so half a million of them."""
    found, place = np.unique(np.concatenate([tally[0], values]), return_inverse=True)
    times = np.concatenate([tally[1], np.ones_like(values)])
    return np.stack([found, np.bincount(place, times).astype(np.int64)])


def _count_exams(counts: Counts, batch: pa.RecordBatch) -> None:
    counts.num_exams += batch.num_rows
    for column in _OF_EXAMS:
        counts.words[column].update(_values(batch[column]))
    counts.scrubbed.update(split_words(_values(batch["scrubbed"])))
    lengths = batch["num_words"].filter(batch["text_origin"].is_valid()).to_numpy()
    counts.report_lengths += np.bincount(np.clip(lengths, 0, _LONGEST), minlength=_LONGEST + 1)


def _values(column: pa.Array) -> dict[str, int]:
    """How often each value stands in a column."""
    found = pc.value_counts(column)
    values = (UNKNOWN if value is None else str(value) for value in found.field("values").to_pylist())
    return dict(zip(values, found.field("counts").to_pylist(), strict=True))


def split_words(joined: dict[str, int]) -> dict[str, int]:
    """Counts of words from counts of cells that join several by ``;``."""
    words: Counter[str] = Counter()
    for cell, number in joined.items():
        words.update(dict.fromkeys(filter(None, cell.split(";")), number))
    return words
