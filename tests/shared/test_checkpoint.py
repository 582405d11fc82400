"""Checkpoints: written whole or not at all, and never read when they are damaged."""

from pathlib import Path

import pytest

from mammofed_shared import checkpoint
from mammofed_shared.checkpoint import (
    MANIFEST_FILE,
    SEALS_FILE,
    STATE_FILE,
    read_checkpoint,
    read_manifest,
    write_checkpoint,
)
from mammofed_shared.errors import CheckpointError
from mammofed_shared.protocol.payload import reference_of
from mammofed_shared.protocol.plan import PayloadReference
from runs import begin_small_run


class Killed(Exception):
    """Stands for a kill at the line where it is raised."""


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return begin_small_run(tmp_path / "run").checkpoint_folder(0)


def test_a_manifest_says_how_the_state_came_to_be(first: Path) -> None:
    manifest, payload = read_checkpoint(first)
    with payload:
        assert set(payload) == set(manifest.spec.tensors)
    assert (manifest.run, manifest.turn, manifest.round) == ("test", 0, 0)
    assert manifest.state == reference_of(first / STATE_FILE)
    assert manifest.settings.preprocessing.height == 64
    assert "+" in manifest.code, "version and digest of the source"


@pytest.mark.parametrize("moment", ["the state", "the manifest", "the rename"])
def test_a_kill_while_it_is_written_leaves_none(tmp_path: Path, first: Path, moment: str) -> None:
    manifest = read_manifest(first)
    target = tmp_path / "new"

    def place(path: Path) -> PayloadReference:
        path.write_bytes((first / STATE_FILE).read_bytes())
        if moment == "the state":
            raise Killed
        return manifest.state

    def die(*_: object, **__: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        if moment == "the manifest":
            patched.setattr(checkpoint, "write_whole", die)
        elif moment == "the rename":
            patched.setattr(Path, "rename", die)
        with pytest.raises(Killed):
            write_checkpoint(target, manifest, place)
    assert not target.exists()
    moment = "none"
    assert write_checkpoint(target, manifest, place) == manifest
    with read_checkpoint(target)[1]:
        assert sorted(path.name for path in target.iterdir()) == [MANIFEST_FILE, SEALS_FILE, STATE_FILE]


def test_a_state_with_one_bit_changed_is_refused(first: Path) -> None:
    path = first / STATE_FILE
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match="expected state"):
        read_checkpoint(first)


def test_a_state_that_is_missing_is_said(first: Path) -> None:
    (first / STATE_FILE).unlink()
    with pytest.raises(CheckpointError, match="the state is missing"):
        read_checkpoint(first)


@pytest.mark.parametrize("text", ["", "{}", "not JSON"])
def test_a_manifest_that_is_none_is_refused(first: Path, text: str) -> None:
    (first / MANIFEST_FILE).write_text(text)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        read_manifest(first)
