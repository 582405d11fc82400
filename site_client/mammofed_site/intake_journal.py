"""What was done with each file of an export, so that a second run, after a kill or a month, does only what is new.

``journal.jsonl`` in the prepared folder, one JSON object a line, written by one process:

    {"recipe": …}                                     first line: what the results below were made with
    {"name": …, "number": …}                          a file got its local number
    {"name": …, "stamp": [bytes, mtime_ns], "row": …} a file was prepared; or "refusal" instead of "row"

A name is the keyed hash of the file's path, so the journal holds no path. A line cut by a kill is ignored.
"""

import fcntl
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from mammofed_shared.dicom.deidentify import Pseudonyms
from mammofed_shared.dicom.preprocess import RECIPE_VERSION, Prepared, Recipe, Refusal
from mammofed_shared.errors import StateError
from mammofed_shared.files import write_whole

JOURNAL_NAME = "journal.jsonl"
_LOCK_NAME = ".lock"

Stamp = tuple[int, int]
"""Size in bytes and time of change in ns: an unchanged file has an unchanged stamp."""


@dataclass(frozen=True, slots=True)
class Done:
    """The result of one file, and the state of the file that gave it."""

    stamp: Stamp
    outcome: Prepared | Refusal


class Journal:
    """Numbers and results of the files of one data set; open it with ``with``."""

    def __init__(self, recipe: Recipe) -> None:
        self.prepared = recipe.prepared
        self.is_new_recipe = False
        self.numbers: dict[str, int] = {}
        self.done: dict[str, Done] = {}
        self._names = Pseudonyms(recipe.key)
        self._recipe = _digest(recipe, self._names)
        self._file: IO[str] | None = None
        self._lock: IO[str] | None = None

    def __enter__(self) -> "Journal":
        """Read the journal and write it anew without what no longer counts.

        Raises:
            StateError: another process is preparing this data set.
        """
        self.prepared.mkdir(parents=True, exist_ok=True)
        self._lock = (self.prepared / _LOCK_NAME).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise StateError("another `site-client preprocess` is working on this data set: wait for it") from error
        path = self.prepared / JOURNAL_NAME
        self._read(path)
        lines: list[Mapping[str, Any]] = [{"recipe": self._recipe}]
        lines += [{"name": name, "number": number} for name, number in self.numbers.items()]
        lines += [_line(name, done) for name, done in self.done.items()]
        write_whole(path, "".join(json.dumps(line) + "\n" for line in lines), mode=0o600)
        self._file = path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._file, self._lock):
            if file is not None:
                file.close()

    def name(self, path: str) -> str:
        """The name of a file in this journal; ``path`` is relative to the export's folder."""
        return self._names.of("file", path)

    def number_all(self, names: Iterable[str]) -> None:
        """Give each new name the next number, in this order; old ones keep theirs for good."""
        last = max(self.numbers.values(), default=0)
        for name in names:
            if name not in self.numbers:
                last += 1
                self.numbers[name] = last
                self._append({"name": name, "number": last})
        self._flush()

    def record(self, name: str, done: Done) -> None:
        """Keep a result; it survives a kill of this process from here on."""
        self.done[name] = done
        self._append(_line(name, done))
        self._flush()

    def _append(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(line) + "\n")

    def _flush(self) -> None:
        assert self._file is not None
        self._file.flush()

    def _read(self, path: Path) -> None:
        raw = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = [line for line in map(_parsed, raw.splitlines()) if line is not None]
        self.is_new_recipe = not lines or lines[0].get("recipe") != self._recipe
        for line in lines[1:]:
            if "number" in line:
                self.numbers[line["name"]] = line["number"]
            elif not self.is_new_recipe:
                outcome = Prepared(**line["row"]) if "row" in line else Refusal(**line["refusal"])
                self.done[line["name"]] = Done(tuple(line["stamp"]), outcome)


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file as it is now; no real stamp where it cannot be asked (a broken link)."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _line(name: str, done: Done) -> Mapping[str, Any]:
    kind = "row" if isinstance(done.outcome, Prepared) else "refusal"
    return {"name": name, "stamp": done.stamp, kind: asdict(done.outcome)}


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None  # cut by a kill
    return value if isinstance(value, dict) else None


def _digest(recipe: Recipe, names: Pseudonyms) -> str:
    """Changes with everything that changes a result: version, settings, profile and key (only its hash enters)."""
    parts = (RECIPE_VERSION, recipe.settings.digest, recipe.profile, names.of("journal", ""))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
