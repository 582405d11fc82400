"""A payload: named tensors and numbers in one safetensors file, hashed, without pickle.

    8 bytes  length of the header, little endian
    header   JSON: name → dtype, shape, data_offsets; "__metadata__": {"numbers": JSON of name → number}
    rest     the tensors, one after the other, without gaps

The file is written tensor by tensor and read through a memory map, so that neither side ever holds a second copy.
The layout is that of the safetensors library, which reads these files (tests/shared/protocol/test_payload.py); we
write it ourselves because the library neither hashes while writing nor gives views of the file.
"""

import hashlib
import json
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.errors import PayloadError
from mammofed_shared.files import fsync_folder, write_all
from mammofed_shared.protocol.plan import PayloadReference

MAX_HEADER_BYTES = 16 * 2**20
"""The paper's state has 900 tensors and a header of 0.1 MB; a larger header than this is an attack or an accident."""

_MAPPED_AROUND = 4 * 2**20
"""Bytes before a block that are given back once more with it. The kernel maps pages around each that is touched, of the
block before, too: 16 files of 240 MB read by blocks of 64 KB took 1589 MB, now 48 MB."""

_NUMPY_OF: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # numpy has no bfloat16: its bits are given
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
}
_NAME_OF = {dtype: name for name, dtype in _NUMPY_OF.items() if name != "BF16"}


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor lies in a payload."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def write_payload(
    path: Path, tensors: Mapping[str, NDArray[Any]], numbers: Mapping[str, float] | None = None
) -> PayloadReference:
    """Write a payload whole or not at all, and give its digest and size.

    Args:
        path: target; a file that is there is replaced only when the new one is safe on disk.
        tensors: name → array of float64/32/16, int64/32 or uint8; written in C order.
        numbers: name → finite number.
    """
    shapes = {name: (_NAME_OF[array.dtype.newbyteorder("<")], array.shape) for name, array in tensors.items()}
    header, order = header_of(shapes, numbers)
    with PayloadWriter(path, header) as writer:
        for name in order:
            writer.write(tensors[name])
    return writer.reference


def header_of(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], numbers: Mapping[str, float] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The header of a payload, and the order in which its tensors lie: wide values first, each width by name.

    Args:
        tensors: name → dtype as safetensors names it, and shape.
    """
    widths = {name: _NUMPY_OF[dtype].itemsize for name, (dtype, _) in tensors.items()}
    order = sorted(tensors, key=lambda name: (-widths[name], name))
    header: dict[str, Any] = {"__metadata__": {"numbers": json.dumps(dict(numbers or {}), sort_keys=True)}}
    offset = 0
    for name in order:
        dtype, shape = tensors[name]
        end = offset + math.prod(shape) * widths[name]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    return header, order


class PayloadWriter:
    """Writes a payload in pieces; the caller gives the tensors' bytes in the order of the header.

    Used as a context: leaving it commits the file (fsync, rename), an exception removes it.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.writing")
        self._sha = hashlib.sha256()
        self._size = 0
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._head = len(text).to_bytes(8, "little") + text
        self.reference = PayloadReference(digest="0" * 64, size=0)

    def __enter__(self) -> "PayloadWriter":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._temporary.open("wb", buffering=0)
        self._put(memoryview(self._head))
        return self

    def write(self, array: NDArray[Any]) -> None:
        """Append an array, or a block of rows of one."""
        contiguous = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        if contiguous.nbytes:
            self._put(contiguous.reshape(-1).view(np.uint8).data)

    def _put(self, data: memoryview) -> None:
        self._sha.update(data)
        self._size += len(data)
        write_all(self._file, data)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            with self._file:
                if kind is None:
                    os.fsync(self._file.fileno())
            if kind is None:
                self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)  # there is none after the rename
        if kind is not None:
            return
        fsync_folder(self._path.parent)
        self.reference = PayloadReference(digest=self._sha.hexdigest(), size=self._size)


class Payload:
    """A payload file opened for reading; tensors are views of a memory map, valid while it is open.

    Raises:
        PayloadError: the header is not what the format says, or tensors overlap, leave gaps or overrun the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = int.from_bytes(head, "little")
            if len(head) < 8 or length > min(MAX_HEADER_BYTES, size - 8):
                raise PayloadError("payload header: its length is beyond the file or the limit")
            text = file.read(length)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.data_start = 8 + length
        try:
            header = json.loads(text, object_pairs_hook=_without_repetition)
            self.entries, self.numbers = _parse_header(header, size - self.data_start)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            self._map.close()
            raise PayloadError(f"payload header: {error}") from error

    def __enter__(self) -> "Payload":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the map; views that are still held keep it alive until they go."""
        try:
            self._map.close()
        except BufferError:
            return

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A read-only view, shaped as the header says; bfloat16 as its 16-bit patterns."""
        entry = self.entries[name]
        dtype = _NUMPY_OF[entry.dtype]
        count = (entry.end - entry.start) // dtype.itemsize
        flat = np.frombuffer(self._map, dtype, count, self.data_start + entry.start)
        return flat.reshape(entry.shape)

    def blocks(self, name: str, num_values: int) -> Iterator[NDArray[Any]]:
        """A tensor's values in order, as flat views of at most ``num_values``, each to be used before the next.

        The pages of a block that was used are given back, for mapped pages count as this process's memory: checking
        an update of 716 MB took the coordinator 748 MB above idle by ``payload[name]``, 39 MB by blocks of 4 MiB
        (tests/benchmarks/exchange.py).
        """
        flat = self[name].reshape(-1)
        begin = self.data_start + self.entries[name].start
        for start in range(0, flat.size, num_values):
            block = flat[start : start + num_values]
            yield block
            first = begin + start * flat.itemsize
            page = max(first - _MAPPED_AROUND, 0) // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, page, first + block.nbytes - page)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a name that stands twice, the first value would be hidden from every check."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def _parse_header(header: Any, data_bytes: int) -> tuple[dict[str, Entry], dict[str, float]]:
    metadata = header.pop("__metadata__", {})
    if set(metadata) - {"numbers"}:
        raise ValueError("metadata may hold numbers only")
    numbers = json.loads(metadata.get("numbers", "{}"), object_pairs_hook=_without_repetition)
    for name, value in numbers.items():
        if not isinstance(name, str) or isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("numbers may hold numbers only")
        if not math.isfinite(value):
            raise ValueError("numbers may hold finite numbers only")
    entries: dict[str, Entry] = {}
    for name, item in header.items():
        if set(item) != {"dtype", "shape", "data_offsets"}:
            raise ValueError("a tensor is described by dtype, shape and data_offsets only")
        start, end = item["data_offsets"]
        shape = tuple(item["shape"])
        dtype = item["dtype"]
        if dtype not in _NUMPY_OF or any(type(size) is not int or size < 0 for size in shape):
            raise ValueError("a tensor's dtype or shape is not allowed")
        if (
            type(start) is not int
            or type(end) is not int
            or end - start != math.prod(shape) * _NUMPY_OF[dtype].itemsize
        ):
            raise ValueError("a tensor's bytes do not match its shape")
        entries[name] = Entry(dtype, shape, start, end)
    expected = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != expected:
            raise ValueError("tensors overlap or leave gaps")
        expected = entry.end
    if expected != data_bytes:
        raise ValueError(f"tensors cover {expected} bytes of {data_bytes}")
    return entries, {name: float(value) for name, value in numbers.items()}


def reference_of(path: Path) -> PayloadReference:
    """Digest and size of a payload file, read once through."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return PayloadReference(digest=digest, size=path.stat().st_size)
