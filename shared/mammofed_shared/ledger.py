"""A ledger: a file of JSON lines, each with the digest of the one before. Both ends keep one.

    {"number": 3, "previous": <digest of line 2>, "entry": {…}, "digest": <SHA-256>, "signature": {…} or null}

``digest`` is over number, previous and entry in canonical form, so it is the same when a line that was lost in a power
cut is written again; the signature, which a drawn number goes into, is over the digest. The file only grows, and a line
that a kill has cut is written anew.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from mammofed_shared.canonical import canonical, digest_of
from mammofed_shared.config.base import Digest, Settings
from mammofed_shared.errors import StateError
from mammofed_shared.files import fsync_folder, write_all

FILE = "ledger.jsonl"


class LineSignature(Settings):
    """Who signed a line, when by his own clock, and the signature in base64."""

    by: Digest
    """Of the certificate."""
    at: str
    value: str


class Line(Settings):
    """One line of a ledger."""

    number: int = Field(ge=1)
    previous: Digest | None
    """None: the first line."""
    entry: dict[str, Any]
    digest: Digest
    signature: LineSignature | None = None

    @property
    def computed(self) -> str:
        """The digest that the line should have."""
        return line_digest(self.number, self.previous, self.entry)

    @property
    def text(self) -> bytes:
        """The line as it stands in the file, without the end of line."""
        return canonical(self.model_dump(mode="json"))


def line_digest(number: int, previous: str | None, entry: dict[str, Any]) -> str:
    """The digest of a line."""
    return digest_of({"number": number, "previous": previous, "entry": entry})


def signed_words(digest: str, at: str) -> bytes:
    """What a line's signature is over."""
    return f"{digest} {at}".encode()


Sign = Callable[[str], LineSignature | None]
"""Gives the signature for a line's digest."""


def unsigned(digest: str) -> None:
    """For a ledger of somebody without a key."""


class Ledger:
    """Appends to a ledger. One process has it open."""

    def __init__(self, path: Path, sign: Sign = unsigned) -> None:
        """Open a ledger; one that is not there begins with its first line.

        Raises:
            StateError: a whole line is not what was written; the message names it.
        """
        self._path = path
        self._sign = sign
        self.lines: list[Line] = []
        _cut_torn_line(path)
        for number, raw in raw_lines(path):
            self.lines.append(_trusted(path, number, raw, self.head))

    @property
    def head(self) -> str | None:
        """Digest of the last line; None before the first."""
        return self.lines[-1].digest if self.lines else None

    def append(self, entry: dict[str, Any]) -> Line:
        """Add an entry (plain JSON data); returns only when it is safe on disk."""
        number, previous = len(self.lines) + 1, self.head
        digest = line_digest(number, previous, entry)
        line = Line(number=number, previous=previous, entry=entry, digest=digest, signature=self._sign(digest))
        append_line(self._path, line.text)
        self.lines.append(line)
        return line


def append_line(path: Path, text: bytes, mode: int = 0o644) -> None:
    """Append a line to a file, durably."""
    is_new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode)
    with os.fdopen(descriptor, "ab", buffering=0) as file:
        size = os.fstat(descriptor).st_size
        try:
            write_all(file, text + b"\n")
            os.fsync(descriptor)
        except OSError:  # a full disk may take a part: the next line must not begin in its midst
            os.ftruncate(descriptor, size)
            raise
    if is_new:
        fsync_folder(path.parent)


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    raw = path.read_bytes()
    whole = raw.rfind(b"\n") + 1
    if whole < len(raw):
        with path.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number, from 1, and bytes of each line; the last one may be torn."""
    if path.exists():
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                yield number, raw.removesuffix(b"\n")


def _trusted(path: Path, number: int, raw: bytes, previous: str | None) -> Line:
    try:
        line = Line.model_validate_json(raw)
    except ValidationError:
        line = None
    is_right = line is not None and line.text == raw
    if line is None or not is_right or (line.number, line.previous, line.digest) != (number, previous, line.computed):
        raise StateError(
            f"{path.name}, line {number}: it is not what was written here, and nothing goes on from a ledger that was "
            "changed. `fl-server verify` (at a site: `site-client ledger`) says what differs; restore it from a copy."
        )
    return line
