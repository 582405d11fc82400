"""Features of one kind of one frozen model, kept at the site in few files: computed once, and read through a map.

    <caches>/features/<kind>-<identity>/about.json             what they are of (About)
    <caches>/features/<kind>-<identity>/00-00000.safetensors   shards: `rows` (n, *row shape) fp16, `keys` (n, 32)
                                                               uint8, `crc` (n,) int64, a CRC-32 of each row

The first number of a shard is that of the process that wrote it, the second counts. A shard is written whole, the last
one again and again while it grows, so a pass that is killed loses seconds. What cannot be read is removed, and computed
again. Nothing here ever leaves the site.
"""

import hashlib
import logging
import math
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.config.base import Digest, Settings
from mammofed_shared.config.features import FeatureKind
from mammofed_shared.data.features import KEY_BYTES
from mammofed_shared.errors import PayloadError, RefusalCode, VisitFailed
from mammofed_shared.files import write_whole
from mammofed_shared.protocol.payload import Payload, write_payload

logger = logging.getLogger(__name__)

FEATURES_FOLDER = "features"
"""Of all kept features, in the site's folder for what can be made again."""
SHARD_BYTES = 128 * 2**20
FLUSH_EVERY_S = 30.0
"""The longest that a computed row waits to be safe."""
_ABOUT_FILE = "about.json"
_BYTES_BESIDE = KEY_BYTES + 8  # of a row: its key and its checksum
_MOST_OPEN = 256  # shards; each holds a file descriptor


class FeatureIdentity(Settings):
    """All that features hang on but the pixels themselves."""

    encoder: Digest
    preprocessing: str
    """Digest of the settings that the images were prepared with."""
    kind: FeatureKind

    @property
    def folder_name(self) -> str:
        """Of the folder that keeps them."""
        return f"{self.kind.slug}-{hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]}"


class About(Settings):
    """What the features in a folder are of."""

    identity: FeatureIdentity
    row_shape: tuple[int, ...]


def bytes_of(row_shape: Sequence[int], num_rows: int) -> int:
    """Disk that so many rows take."""
    return num_rows * (2 * math.prod(row_shape) + _BYTES_BESIDE)


class FeatureStore:
    """The kept features as they are on disk when it is opened; nothing that comes later is seen.

    Args:
        caches: the site's folder for what can be made again.
    """

    def __init__(self, caches: Path, identity: FeatureIdentity) -> None:
        self.caches = caches
        self.identity = identity
        self.folder = caches / FEATURES_FOLDER / identity.folder_name
        about = read_about(self.folder)
        self.row_shape = about.row_shape if about is not None and about.identity == identity else None
        self._shards: list[Path] = []
        self._open: OrderedDict[int, dict[str, NDArray[Any]]] = OrderedDict()
        self._lock = threading.Lock()
        keys = []
        for path in sorted(self.folder.glob("*.safetensors")) if self.row_shape is not None else ():
            try:
                keys.append(_read_shard(path, self.row_shape)["keys"].copy())
                self._shards.append(path)
            except (OSError, PayloadError) as error:
                logger.warning("%s of the kept features is damaged (%s) and removed", path.name, error)
                path.unlink(missing_ok=True)
        self._index(keys)

    def _index(self, keys: Sequence[NDArray[np.uint8]]) -> None:
        """Sorted keys, as bytes that numpy compares at once, with shard and row of each."""
        words = _words(np.concatenate([np.zeros((0, KEY_BYTES), np.uint8), *keys]))
        sizes = np.array([len(part) for part in keys], np.int64)
        order = np.argsort(words, kind="stable")
        self._keys = words[order]
        self._shard_of = np.repeat(np.arange(len(keys)), sizes)[order]
        self._row_of = (np.arange(len(words)) - np.repeat(np.cumsum(sizes) - sizes, sizes))[order]

    def __len__(self) -> int:
        return len(self._keys)

    def places(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """Where each item's row is, for ``read``; -1: nowhere."""
        wanted = _words(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES))
        if not len(self._keys):
            return np.full(len(wanted), -1, np.int64)
        place = np.searchsorted(self._keys, wanted).clip(max=len(self._keys) - 1)
        return np.where(self._keys[place] == wanted, place, -1)

    def read(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """The rows at these places (places, *row_shape).

        Raises:
            VisitFailed: WORKER_DIED, a row is not what was written. Its shard is removed, so that the visit, which is
                tried again after this code, computes it again.
        """
        assert self.row_shape is not None, "a place is one of a store that has rows"
        out = np.empty((len(places), *self.row_shape), np.float32)
        for number, place in enumerate(places.tolist()):
            shard, row = int(self._shard_of[place]), int(self._row_of[place])
            tensors = self._tensors(shard)
            stored = tensors["rows"][row]
            if _checksum(stored) != tensors["crc"][row]:
                self._shards[shard].unlink(missing_ok=True)
                raise VisitFailed(
                    RefusalCode.WORKER_DIED,
                    f"{self._shards[shard].name} of the kept features is not what was written: look for a failing "
                    "disk. It was removed, and is computed again with the next visit",
                )
            out[number] = stored
        return out

    def _tensors(self, shard: int) -> dict[str, NDArray[Any]]:
        """The views of a shard; they keep its map alive while they are used, also when it is dropped here."""
        with self._lock:
            if shard not in self._open:
                self._open[shard] = _read_shard(self._shards[shard], self.row_shape)
                if len(self._open) > _MOST_OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(shard)
            return self._open[shard]


class FeatureWriter:
    """Adds rows to a store; leaving it as a context keeps all that was added, whatever ended it.

    Args:
        process: number of the writing process; each writes shards of its own.
    """

    def __init__(self, store: FeatureStore, row_shape: tuple[int, ...], process: int = 0) -> None:
        self._folder = store.folder
        self._row_shape = row_shape
        self._most = max(1, SHARD_BYTES // bytes_of(row_shape, 1))
        self._prefix = f"{process:02d}"
        self._keys: list[bytes] = []
        self._rows: list[NDArray[np.float16]] = []
        self._flushed = 0
        self._flushed_s = time.monotonic()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if store.row_shape is None:
            about = About(identity=store.identity, row_shape=row_shape)
            write_whole(self._folder / _ABOUT_FILE, about.model_dump_json(indent=1))
        self._number = self._go_on()

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()

    def add(self, key: bytes, row: NDArray[np.float16]) -> None:
        """Keep an item's row; it is safe within ``FLUSH_EVERY_S`` of further rows."""
        self._keys.append(key)
        self._rows.append(row)
        if len(self._rows) == self._most:
            self._flush()
            self._keys, self._rows, self._flushed = [], [], 0
            self._number += 1
        elif time.monotonic() - self._flushed_s > FLUSH_EVERY_S:
            self._flush()

    def _go_on(self) -> int:
        """Take up the last shard where it has room; the number of the shard to write."""
        shards = sorted(self._folder.glob(f"{self._prefix}-*.safetensors"))
        if not shards:
            return 0
        number = int(shards[-1].stem.split("-")[1])
        tensors = _read_shard(shards[-1], self._row_shape)
        if len(tensors["rows"]) >= self._most:
            return number + 1
        self._keys = [key.tobytes() for key in tensors["keys"]]
        self._rows = [row.copy() for row in tensors["rows"]]
        self._flushed = len(self._rows)
        return number

    def _flush(self) -> None:
        self._flushed_s = time.monotonic()
        if len(self._rows) == self._flushed:
            return
        rows = np.stack(self._rows)
        tensors: dict[str, NDArray[Any]] = {
            "rows": rows,
            "keys": np.frombuffer(b"".join(self._keys), np.uint8).reshape(-1, KEY_BYTES),
            "crc": np.array([_checksum(row) for row in rows], np.int64),
        }
        write_payload(self._folder / f"{self._prefix}-{self._number:05d}.safetensors", tensors)
        self._flushed = len(self._rows)


def kept_bytes(caches: Path) -> dict[Path, int]:
    """Folder of each store → bytes of its files."""
    folders = sorted(path for path in (caches / FEATURES_FOLDER).glob("*") if path.is_dir())
    return {folder: sum(file.stat().st_size for file in folder.iterdir()) for folder in folders}


def read_about(folder: Path) -> About | None:
    """What the features in a folder are of; None where nothing readable says it, and they are of no use."""
    try:
        return About.model_validate_json((folder / _ABOUT_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def _read_shard(path: Path, row_shape: tuple[int, ...] | None) -> dict[str, NDArray[Any]]:
    """Views of a shard's tensors through a map of the file.

    Raises:
        PayloadError: it is no whole shard of such rows.
    """
    payload = Payload(path)
    num_rows = payload.entries["keys"].shape[0] if "keys" in payload.entries else 0
    expected = {
        "rows": ("F16", (num_rows, *(row_shape or ()))),
        "keys": ("U8", (num_rows, KEY_BYTES)),
        "crc": ("I64", (num_rows,)),
    }
    if {name: (entry.dtype, entry.shape) for name, entry in payload.entries.items()} != expected:
        payload.close()
        raise PayloadError("it does not hold rows, keys and checksums of these features")
    return {name: payload[name] for name in expected}


def _checksum(row: NDArray[np.float16]) -> int:
    return zlib.crc32(np.ascontiguousarray(row).reshape(-1).view(np.uint8).data)


def _words(keys: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    return np.ascontiguousarray(keys).view(f"S{KEY_BYTES}").reshape(-1)
