"""A seal says whether a file is as it was, and of one changed byte which."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammofed_shared.seal import BLOCK_BYTES, Damage, Seal, find_damage, seal_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seals")


def _file(folder: Path, raw: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(raw)
    return path


@given(raw=st.binary(min_size=1, max_size=300), times=st.sampled_from([1, 3, 700]), data=st.data())
@settings(max_examples=60, deadline=None)
def test_one_changed_byte_is_found_with_what_it_was(folder: Path, raw: bytes, times: int, data: st.DataObject) -> None:
    raw *= times
    seal = seal_file(_file(folder, raw))
    assert find_damage(folder / "file", seal) == []
    place = data.draw(st.integers(0, len(raw) - 1))
    change = data.draw(st.integers(1, 255))
    changed = bytearray(raw)
    changed[place] ^= change
    assert find_damage(_file(folder, bytes(changed)), seal) == [Damage(place, place + 1, changed[place], raw[place])]


@pytest.mark.parametrize("place", [0, BLOCK_BYTES - 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 17])
def test_the_borders_of_blocks_are_no_borders_for_a_changed_byte(tmp_path: Path, place: int) -> None:
    raw = bytes(range(256)) * 800
    seal = seal_file(_file(tmp_path, raw))
    assert len(seal.checksums) == 4
    changed = bytearray(raw)
    changed[place] ^= 1
    (damage,) = find_damage(_file(tmp_path, bytes(changed)), seal)
    assert (damage.first, damage.expected) == (place, raw[place])


def test_two_changed_bytes_are_told_by_their_blocks(tmp_path: Path) -> None:
    raw = bytes(3 * BLOCK_BYTES)
    seal = seal_file(_file(tmp_path, raw))
    changed = bytearray(raw)
    changed[5], changed[9], changed[2 * BLOCK_BYTES] = 1, 1, 1
    assert find_damage(_file(tmp_path, bytes(changed)), seal) == [
        Damage(0, BLOCK_BYTES),
        Damage(2 * BLOCK_BYTES, 3 * BLOCK_BYTES),
    ]


@pytest.mark.parametrize(("size", "first"), [(100, 100), (300, 200), (0, 0)])
def test_a_file_of_another_size_is_told_from_its_first_other_block(tmp_path: Path, size: int, first: int) -> None:
    seal = seal_file(_file(tmp_path, bytes(200)))
    (damage,) = find_damage(_file(tmp_path, bytes(size)), seal)
    assert damage.end == max(size, 200)
    assert damage.first in (0, first), "one block: its checksum covers the whole file"


def test_a_change_that_keeps_every_checksum_is_found_by_the_digest(tmp_path: Path) -> None:
    path = _file(tmp_path, b"one")
    other = seal_file(path)
    assert find_damage(path, Seal(size=3, sha256="0" * 64, crc32=other.crc32)) == [Damage(0, 3)]


def test_a_digest_that_is_known_is_not_computed_again(tmp_path: Path) -> None:
    assert seal_file(_file(tmp_path, b"one"), "a" * 64).sha256 == "a" * 64


def test_an_empty_file_has_a_seal(tmp_path: Path) -> None:
    path = _file(tmp_path, b"")
    assert find_damage(path, seal_file(path)) == []
