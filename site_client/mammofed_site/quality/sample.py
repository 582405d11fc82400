"""Drawing a few files of each group: equal tables give an equal drawing, and a new file changes little of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mammofed_site.quality.batches import batches

Numbers = NDArray[np.int64]


class Sample:
    """Of each group, the ``size`` files whose numbers have the lowest hash."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._drawn: dict[str, Numbers] = {}

    def add(self, group: str, numbers: Numbers) -> None:
        """Take more files of a group into the drawing."""
        together = np.concatenate([self._drawn.get(group, numbers[:0]), numbers])
        self._drawn[group] = together[np.argsort(_hash(together), kind="stable")[: self._size]]

    def groups(self) -> list[str]:
        """All groups, in alphabetical order."""
        return sorted(self._drawn)

    def of(self, group: str) -> list[int]:
        """File numbers of a group, in the order of their hashes."""
        return [int(number) for number in self._drawn.get(group, ())]

    def in_turn(self, num: int) -> list[int]:
        """Up to ``num`` file numbers, one of each group after the other, so that small groups are seen too."""
        rounds = [[group[turn] for group in map(self.of, self.groups()) if turn < len(group)] for turn in range(num)]
        return [number for one in rounds for number in one][:num]


def _hash(numbers: Numbers) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): files of one folder have neighbouring numbers."""
    value = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = (value ^ (value >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(value ^ (value >> np.uint64(31)), np.uint64)


def sample_accepted(prepared: Path, size: int) -> Sample:
    """Files of images by vendor and view."""
    sample = Sample(size)
    for batch in batches(prepared / "images.parquet", ("vendor", "view", "file_number")):
        groups = pc.binary_join_element_wise(batch["vendor"], batch["view"], " ")
        _add_by_group(sample, groups, batch["file_number"])
    return sample


def sample_flagged(prepared: Path, size: int) -> Sample:
    """Files of images by the words that flag them."""
    sample = Sample(size)
    for batch in batches(prepared / "images.parquet", ("flagged", "file_number")):
        words = pc.split_pattern(batch["flagged"], ";")
        numbers = batch["file_number"].take(pc.list_parent_indices(words))
        _add_by_group(sample, pc.list_flatten(words), numbers)
    return sample


def sample_by_reason(prepared: Path, size: int) -> Sample:
    """Refused files by reason."""
    sample = Sample(size)
    for batch in batches(prepared / "refused.parquet", ("reason", "file_number")):
        _add_by_group(sample, batch["reason"], batch["file_number"])
    return sample


def _add_by_group(sample: Sample, groups: pa.Array, numbers: pa.Array) -> None:
    for group in pc.unique(groups).to_pylist():
        if group:
            sample.add(group, numbers.filter(pc.equal(groups, group)).to_numpy())


def image_rows(prepared: Path, numbers: set[int]) -> dict[int, dict[str, Any]]:
    """What the page says of some images, by file number."""
    return {row["file_number"]: row for row in _rows(prepared, pa.array(sorted(numbers), pa.int64()))}


def _rows(prepared: Path, numbers: pa.Array) -> Iterator[dict[str, Any]]:
    columns = ("file_number", "path", "laterality", "view", "vendor")
    for batch in batches(prepared / "images.parquet", columns):
        yield from batch.filter(pc.is_in(batch["file_number"], numbers)).to_pylist()
