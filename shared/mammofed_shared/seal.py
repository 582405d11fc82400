"""Seals of files: whether a file is as it was written and, if not, where.

A seal is the file's SHA-256 and one CRC-32 of each block. The SHA-256 is the proof. The checksums find the place: a CRC
is linear, so that what one changed byte does to it tells byte and place, and the SHA-256 of the file with that byte put
back proves it (Peterson and Brown, Cyclic Codes for Error Detection, 1961).

Summing 713 MB that were just written takes 0.14 s, beside 0.5 s for their SHA-256.
"""

import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from mammofed_shared.config.base import Digest, Settings

BLOCK_BYTES = 2**16
_READ_BYTES = 2**22

_CRC_TABLE = [zlib.crc32(bytes([value])) ^ zlib.crc32(b"\0") for value in range(256)]
"""What a change in the last byte does to the checksum, by the change."""
_CHANGE_OF_TOP = {entry >> 24: (change, entry) for change, entry in enumerate(_CRC_TABLE)}
"""The table, by its entries' highest byte: all 256 differ, which is why one step can be undone."""


class Seal(Settings):
    """What a file was when it was sealed."""

    size: int = Field(ge=0)
    sha256: Digest
    crc32: str = Field(pattern=r"^([0-9a-f]{8})*$")
    """One of each block of 64 KiB, eight hexadecimal digits each, without gaps."""

    @property
    def checksums(self) -> list[int]:
        """The CRC-32 of each block."""
        return [int(self.crc32[start : start + 8], 16) for start in range(0, len(self.crc32), 8)]


@dataclass(frozen=True, slots=True)
class Damage:
    """Where a file is not what it was: bytes ``first`` to before ``end``; of one byte, also what it is and was."""

    first: int
    end: int
    found: int | None = None
    expected: int | None = None


def seal_file(path: Path, sha256: str | None = None) -> Seal:
    """The seal of a file; its SHA-256 is computed unless it is known already."""
    sha = hashlib.sha256()
    sums: list[int] = []
    size = 0
    with path.open("rb", buffering=0) as file:
        for block in _blocks(file.fileno()):
            if sha256 is None:
                sha.update(block)
            sums += [zlib.crc32(block[start : start + BLOCK_BYTES]) for start in range(0, len(block), BLOCK_BYTES)]
            size += len(block)
    return Seal(size=size, sha256=sha256 or sha.hexdigest(), crc32="".join(f"{value:08x}" for value in sums))


def _blocks(descriptor: int) -> Iterator[memoryview]:
    buffer = bytearray(_READ_BYTES)
    view = memoryview(buffer)
    position = 0
    while True:
        held = 0
        while held < _READ_BYTES and (count := os.preadv(descriptor, [view[held:]], position)):
            held += count
            position += count
        if not held:
            return
        yield view[:held]


def find_damage(path: Path, seal: Seal) -> list[Damage]:
    """The places where a file is not as it was sealed; none when it is.

    A change that keeps a block's checksum, as only somebody makes who means to, is found but not placed: then the
    damage is the whole file.
    """
    now = seal_file(path)
    if now == seal:
        return []
    if now.size != seal.size:
        common = min(now.size, seal.size)
        first = next((item.first for item in _damaged_blocks(now, seal, common)), common)
        return [Damage(first, max(now.size, seal.size))]
    blocks = _damaged_blocks(now, seal, seal.size)
    if len(blocks) == 1:
        one = _one_byte(path, seal, blocks[0], now.checksums)
        return [one] if one is not None else blocks
    return blocks or [Damage(0, seal.size)]


def _damaged_blocks(now: Seal, seal: Seal, size: int) -> list[Damage]:
    found, expected = now.checksums, seal.checksums
    return [
        Damage(index * BLOCK_BYTES, min((index + 1) * BLOCK_BYTES, size))
        for index in range(-(-size // BLOCK_BYTES))
        if found[index] != expected[index]
    ]


def _one_byte(path: Path, seal: Seal, block: Damage, checksums: list[int]) -> Damage | None:
    """The one byte that differs in a block, proved by the file's SHA-256; None when more than one does."""
    index = block.first // BLOCK_BYTES
    difference = checksums[index] ^ seal.checksums[index]
    for position, change in _single_changes(difference, block.first, block.end):
        with path.open("rb") as file:
            file.seek(position)
            found = file.read(1)[0]
        if _sha256_with(path, position, found ^ change) == seal.sha256:
            return Damage(position, position + 1, found, found ^ change)
    return None


def _single_changes(difference: int, first: int, end: int) -> Iterator[tuple[int, int]]:
    """Each (position, change of the byte) that alone explains a checksum's difference, from the block's end on.

    A change ``c`` in the last byte changes the checksum by ``T[c]``; each byte after it maps ``d`` to
    ``(d >> 8) ^ T[d & 255]``. That step is undone until what is left is an entry of the table.
    """
    for position in range(end - 1, first - 1, -1):
        change, entry = _CHANGE_OF_TOP[difference >> 24]
        if difference == entry and change:
            yield position, change
        difference = ((difference ^ entry) << 8) & 0xFFFFFFFF | change


def _sha256_with(path: Path, position: int, value: int) -> str:
    """SHA-256 of a file with another byte at one place."""
    sha = hashlib.sha256()
    begin = 0
    with path.open("rb", buffering=0) as file:
        for block in _blocks(file.fileno()):
            if begin <= position < begin + len(block):
                block[position - begin] = value
            sha.update(block)
            begin += len(block)
    return sha.hexdigest()
