"""The joint state as sites receive it: the checkpoint's own file, or its bfloat16 form, made once a turn.

    <run>/delivered/00007.safetensors    the encoded state of checkpoint 7; equal bytes whenever it is made

A site trains from the rounded state; the checkpoint stays whole, so rounding never adds up over turns.
"""

import shutil
from pathlib import Path

from mammofed_server.run_state import RunState
from mammofed_shared.checkpoint import Manifest
from mammofed_shared.protocol.encoding import encode, encoded_names
from mammofed_shared.protocol.payload import reference_of
from mammofed_shared.protocol.plan import PayloadReference


class DeliveredStates:
    """What sites receive of a run's checkpoints."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        self._folder = run.folder / "delivered"
        self._encoding = run.record.settings.transfer.download
        self._known: dict[int, PayloadReference] = {}

    def reference(self, manifest: Manifest) -> PayloadReference:
        """Digest and size of what sites receive of a checkpoint; it is made if it is not there."""
        if self._encoding == "fp32":
            return manifest.state
        turn = manifest.turn
        if turn not in self._known or not self.path(turn).exists():
            self._known = {turn: self._make(turn)}
        return self._known[turn]

    def path(self, turn: int) -> Path:
        """The file that ``reference`` names."""
        if self._encoding == "fp32":
            return self._run.state_path(turn)
        return self._folder / f"{turn:05d}.safetensors"

    def digest(self, manifest: Manifest) -> str | None:
        """Digest of what sites received, where it is another than that of the checkpoint's state."""
        return None if self._encoding == "fp32" else self.reference(manifest).digest

    def clear(self) -> None:
        """Remove all of it; what is asked for again is made again."""
        self._known = {}
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make(self, turn: int) -> PayloadReference:
        path = self.path(turn)
        if path.exists():  # written whole by an earlier start
            return reference_of(path)
        self.clear()  # its turn is over, or a kill left half of it
        return encode(self._run.state_path(turn), path, encoded_names(self._run.record.spec, self._encoding))
