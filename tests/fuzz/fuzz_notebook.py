"""Memory that a process and its parent share through a file: what was being read when the process ended."""

import hashlib
import mmap
import struct
from pathlib import Path

_HEAD = struct.Struct("<QQ")
"""Inputs begun; length of the one at hand, or ``_NONE``."""
_NONE = 2**64 - 1
LARGEST = 1 << 20
"""Bytes of an input."""


class Notebook:
    """Count and current input in ``path``; inputs over which our own code stumbled, in the folder ``broken``."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_HEAD.pack(0, _NONE) + bytes(LARGEST))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _HEAD.size + LARGEST)
        self._folder = path.parent / "broken"

    def begin(self, data: bytes) -> None:
        """Note an input before it is read."""
        self._memory[_HEAD.size : _HEAD.size + len(data)] = data
        self._memory[: _HEAD.size] = _HEAD.pack(self.count + 1, len(data))

    def end(self) -> None:
        """Note that the input was read to its end."""
        self._memory[: _HEAD.size] = _HEAD.pack(self.count, _NONE)

    def broken(self, what: str, data: bytes) -> None:
        """Keep an input that raised something else than a refusal, once for each place."""
        folder = self._folder / hashlib.sha256(what.encode()).hexdigest()[:12]
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / "what").write_text(what)
            (folder / "input").write_bytes(data)

    @property
    def count(self) -> int:
        """Inputs begun."""
        return int(_HEAD.unpack(self._memory[: _HEAD.size])[0])

    @property
    def current(self) -> bytes | None:
        """The input that was begun and not ended."""
        length = int(_HEAD.unpack(self._memory[: _HEAD.size])[1])
        return None if length == _NONE else self._memory[_HEAD.size : _HEAD.size + length]
