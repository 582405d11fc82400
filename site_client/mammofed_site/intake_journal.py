"""What was done with each file of an export, so that a second run, after a kill or a month, does only what is new.

``journal.sqlite`` in the prepared folder, readable by its owner only, written by one process: one row a file, with its
local number, the state in which it was last seen, and the result that it gave. A file is known by the keyed hash of
its path, so the journal holds no path. Rows are never removed: a number means one file for good. Nothing here is held
in memory, so an export may have millions of files.
"""

import fcntl
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from mammofed_shared.dicom.preprocess import RECIPE_VERSION, Prepared, Recipe, Refusal
from mammofed_shared.dicom.reasons import BY_WORD, Reason
from mammofed_shared.errors import StateError
from mammofed_shared.pseudonyms import Pseudonyms

JOURNAL_NAME = "journal.sqlite"
_LOCK_NAME = ".lock"
_ITEM_NAMES = tuple(field.name for field in fields(Prepared))
_VERSION = 1

Stamp = tuple[int, int]
"""Size in bytes and time of change in ns: an unchanged file has an unchanged stamp."""

LOST = (Reason.DECODER_DIED, Reason.DECODER_HUNG, Reason.INTERNAL_ERROR)
"""A lost worker may have been the machine's fault: such a file gets another chance in every run."""

_TABLES = """
CREATE TABLE IF NOT EXISTS about (recipe TEXT NOT NULL, run INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS file (
    number INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,      -- keyed hash of the path
    run INTEGER NOT NULL,           -- the last run in which the file was there
    size INTEGER NOT NULL, changed INTEGER NOT NULL,       -- its stamp then
    done_size INTEGER, done_changed INTEGER,               -- its stamp when it gave the result below
    reason TEXT, detail TEXT,                              -- of a refusal
    item TEXT,                                             -- JSON of an accepted image, and parts of it to sort by:
    patient TEXT, exam TEXT, image TEXT, pixels TEXT, day INTEGER
);
"""
_INDEXES = """
CREATE INDEX IF NOT EXISTS by_image ON file (image, number) WHERE item IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_exam ON file (exam, number) WHERE item IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_pixels ON file (pixels, patient, number) WHERE item IS NOT NULL;
"""
_TODO = f"""
    run = :run AND ((item IS NULL AND reason IS NULL) OR size <> done_size OR changed <> done_changed
                    OR reason IN ({", ".join(f"'{reason}'" for reason in LOST)}))
"""
# Of files with one instance UID, or one patient's equal pixels, the lowest number counts. Files that share a UID but
# not their pixels are all refused, and so are exams that claim two patients: nobody knows which of them is right.
_VERDICTS = f"""
    WITH here AS (
        SELECT number, item, patient, exam, image, pixels, day,
               min(pixels) OVER by_image <> max(pixels) OVER by_image AS is_conflict,
               min(patient) OVER by_exam <> max(patient) OVER by_exam AS is_contradiction
        FROM file WHERE run = :run AND item IS NOT NULL
        WINDOW by_image AS (PARTITION BY image), by_exam AS (PARTITION BY exam)
    ), sound AS (
        SELECT number,
               number > min(number) OVER by_image OR number > min(number) OVER by_pixels AS is_duplicate,
               min(patient) OVER by_any <> max(patient) OVER by_any AS is_shared
        FROM here WHERE NOT is_conflict AND NOT is_contradiction
        WINDOW by_image AS (PARTITION BY image), by_pixels AS (PARTITION BY patient, pixels),
               by_any AS (PARTITION BY pixels)
    )
    SELECT here.number, item, coalesce(is_shared, 0), min(day) OVER (PARTITION BY patient) AS first_day,
           CASE WHEN is_conflict THEN '{Reason.DUPLICATE_CONFLICT}'
                WHEN is_contradiction THEN '{Reason.CONTRADICTING_TAGS}'
                WHEN is_duplicate THEN '{Reason.DUPLICATE}' END AS verdict
    FROM here LEFT JOIN sound USING (number)
    ORDER BY exam, here.number
"""


@dataclass(frozen=True, slots=True)
class Accepted:
    """One image that its file alone did not refuse.

    ``verdict`` is the reason for which the other files refuse it, or None; ``is_shared``: another patient has the same
    pixels; ``first_day`` is the shifted day of the patient's first exam here.
    """

    number: int
    item: Prepared
    verdict: Reason | None
    is_shared: bool
    first_day: int | None


class Journal:
    """Numbers and results of the files of one data set; open it with ``with``.

    Args:
        recipe: what the results are made with; results of another recipe do not count. A dry one works on a copy that
            vanishes with it.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.prepared = recipe.prepared
        self.is_new_recipe = False
        self._is_dry = recipe.is_dry
        self._names = Pseudonyms(recipe.key)
        self._recipe = _digest(recipe, self._names)
        self._run = 0
        self._lock: IO[str] | None = None
        self._base: sqlite3.Connection | None = None

    def __enter__(self) -> "Journal":
        """Open the journal, begin a run, and forget results that another recipe gave.

        Raises:
            StateError: another process is preparing this data set.
        """
        if not self._is_dry:
            self._take_lock()
        self._base = self._copy() if self._is_dry else self._own()
        self._base.executescript(_TABLES + _INDEXES)
        self._base.execute("CREATE TEMP TABLE kept (path TEXT PRIMARY KEY, patient TEXT NOT NULL) WITHOUT ROWID")
        about = self._base.execute("SELECT recipe, run FROM about").fetchone()
        self.is_new_recipe = about is None or about[0] != self._recipe
        self._run = 1 if about is None else about[1] + 1
        with self._base:
            self._base.execute("BEGIN")
            if self.is_new_recipe:
                self._base.execute("UPDATE file SET item = NULL, reason = NULL")
            self._base.execute("DELETE FROM about")
            self._base.execute("INSERT INTO about VALUES (?, ?)", (self._recipe, self._run))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._base is not None:
            if not self._is_dry:
                with suppress(sqlite3.OperationalError):  # `--locate` reads it just now
                    self._base.execute("PRAGMA journal_mode = DELETE")  # one file at rest, which reading leaves alone
            self._base.close()
        if self._lock is not None:
            self._lock.close()

    def name(self, path: str) -> str:
        """The name of a file in this journal; ``path`` is relative to the export's folder."""
        return self._names.of("file", path)

    def note(self, files: Iterator[tuple[str, Stamp]]) -> None:
        """Note that these files are there (name and stamp); each new one gets the next number, in this order."""
        with self._open:
            self._open.execute("BEGIN")
            self._open.executemany(
                "INSERT INTO file (name, run, size, changed) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE "
                "SET run = excluded.run, size = excluded.size, changed = excluded.changed",
                ((bytes.fromhex(name), self._run, *stamp) for name, stamp in files),
            )

    def num_files(self) -> int:
        """Files that are there in this run."""
        return int(self._one("SELECT count(*) FROM file WHERE run = :run"))

    def num_todo(self) -> int:
        """Files that are new or changed, or whose worker was lost."""
        return int(self._one(f"SELECT count(*) FROM file WHERE {_TODO}"))

    def number_if_todo(self, name: str) -> int | None:
        """The number of a file that is new or changed; None for one that is done."""
        found = self._open.execute(
            f"SELECT number FROM file WHERE name = :name AND {_TODO}", {"name": bytes.fromhex(name), "run": self._run}
        ).fetchone()
        return None if found is None else int(found[0])

    def redo(self, number: int) -> None:
        """Forget the result of a file whose image is needed and no longer there."""
        self._open.execute("UPDATE file SET item = NULL, reason = NULL WHERE number = ?", (number,))

    def record(self, number: int, stamp: Stamp, outcome: Prepared | Refusal) -> None:
        """Keep a result; it survives a kill of this process from here on."""
        values: dict[str, Any] = dict.fromkeys(
            ("reason", "detail", "item", "patient", "exam", "image", "pixels", "day")
        )
        if isinstance(outcome, Refusal):
            values |= {"reason": str(outcome.reason), "detail": outcome.detail}
        else:
            values |= {
                "item": json.dumps({name: getattr(outcome, name) for name in _ITEM_NAMES}),
                "pixels": outcome.png_sha256,
                "day": outcome.shifted_day,
            }
            values |= {"patient": outcome.patient, "exam": outcome.exam, "image": outcome.image}
        changes = ", ".join(f"{name} = :{name}" for name in values)
        self._open.execute(
            f"UPDATE file SET {changes}, done_size = :size, done_changed = :changed WHERE number = :number",
            values | {"size": stamp[0], "changed": stamp[1], "number": number},
        )

    def accepted(self) -> Iterator[Accepted]:
        """Every accepted image that is there, in the order of exams, with what the other files say of it."""
        for number, item, is_shared, first_day, verdict in self._open.execute(_VERDICTS, {"run": self._run}):
            values = json.loads(item)
            values |= {"grey": tuple(values["grey"]), "known": tuple(values["known"])}
            reason = None if verdict is None else BY_WORD[verdict]
            yield Accepted(number, Prepared(**values), reason, bool(is_shared), first_day)

    def keep(self, item: Prepared) -> None:
        """Note that the tables name this image; forgotten when the journal is closed."""
        self._open.execute("INSERT INTO kept VALUES (?, ?)", (item.path, item.patient))

    def num_patients_kept(self) -> int:
        """Patients of the images that the tables name."""
        return int(self._open.execute("SELECT count(DISTINCT patient) FROM kept").fetchone()[0])

    def is_kept(self, path: str) -> bool:
        """Whether the tables name this image."""
        return self._open.execute("SELECT 1 FROM kept WHERE path = ?", (path,)).fetchone() is not None

    def refused(self) -> Iterator[tuple[int, Refusal]]:
        """Every file that was refused by itself, in the order of numbers."""
        rows = self._open.execute(
            "SELECT number, reason, detail FROM file WHERE run = ? AND reason IS NOT NULL ORDER BY number", (self._run,)
        )
        for number, reason, detail in rows:
            yield number, Refusal(reason, detail)

    @property
    def _open(self) -> sqlite3.Connection:
        assert self._base is not None, "open the journal with `with`"
        return self._base

    def _one(self, query: str) -> Any:
        return self._open.execute(query, {"run": self._run}).fetchone()[0]

    def _take_lock(self) -> None:
        self.prepared.mkdir(parents=True, exist_ok=True)
        self._lock = (self.prepared / _LOCK_NAME).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise StateError("another `site-client preprocess` is working on this data set: wait for it") from error

    def _own(self) -> sqlite3.Connection:
        path = self.prepared / JOURNAL_NAME
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite would make it readable by others
        base = sqlite3.connect(path, isolation_level=None)
        # A kill loses nothing; a power cut may lose the last results, which are then made again.
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = NORMAL")
        if base.execute("PRAGMA user_version").fetchone()[0] not in (0, _VERSION):
            base.close()
            raise StateError(f"{JOURNAL_NAME} was made by another version of mammofed: move the prepared folder away")
        base.execute(f"PRAGMA user_version = {_VERSION}")
        return base

    def _copy(self) -> sqlite3.Connection:
        """A database of its own, in temporary files without a name, that begins as what was done so far."""
        base = sqlite3.connect("", isolation_level=None)
        path = self.prepared / JOURNAL_NAME
        if path.exists():
            original = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            original.backup(base)
            original.close()
        return base


def names_of(prepared: Path, numbers: Iterable[int]) -> dict[str, int]:
    """The names (keyed hashes of paths) of the files that have these numbers, each with its number."""
    path = prepared / JOURNAL_NAME
    if not path.exists():
        return {}
    base = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        query = "SELECT name FROM file WHERE number = ?"
        found = {number: base.execute(query, (number,)).fetchone() for number in numbers}
    finally:
        base.close()
    return {row[0].hex(): number for number, row in found.items() if row is not None}


def exams_of_accession(prepared: Path, accession: str) -> set[str]:
    """The exams (pseudonyms) whose accepted images have this pseudonym of an accession number."""
    path = prepared / JOURNAL_NAME
    if not path.exists():
        return set()
    base = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        query = "SELECT DISTINCT exam FROM file WHERE item IS NOT NULL AND json_extract(item, '$.accession') = ?"
        return {str(row[0]) for row in base.execute(query, (accession,))}
    finally:
        base.close()


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file as it is now; no real stamp where it cannot be asked (a broken link)."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _digest(recipe: Recipe, names: Pseudonyms) -> str:
    """Changes with everything that changes a result: version, settings, profile and key (only its hash enters)."""
    parts = (RECIPE_VERSION, recipe.settings.digest, recipe.profile.model_dump_json(), names.of("journal", ""))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
