"""The translations of one data set while they are made: kept sentence by sentence, published as a whole.

    <prepared>/translations.sqlite.unfinished    written batch by batch; a killed run goes on from here
    <prepared>/translations.sqlite               what training reads (data/translations.py)

Training sees old or new translations, never half of them: else a visit that is killed and done again would not end in
the same bits.
"""

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import IO

from mammofed_shared.data.translations import TRANSLATIONS_NAME, VERSION, TranslationRecipe, sentence_key
from mammofed_shared.errors import DataError, StateError
from mammofed_shared.files import fsync_file, fsync_folder
from mammofed_site.working_database import open_working_database

_TABLES = """
CREATE TABLE IF NOT EXISTS about (recipe TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sentence (key BLOB PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
"""


class TranslationStore:
    """Open it with ``with``; only one process can.

    Raises:
        StateError: another process is translating this data set.
        DataError: the unfinished file is damaged.
    """

    def __init__(self, prepared: Path, recipe: TranslationRecipe) -> None:
        self._recipe = recipe.digest
        self._published = prepared / TRANSLATIONS_NAME
        self._unfinished = prepared / f"{TRANSLATIONS_NAME}.unfinished"
        self._lock: IO[str] | None = None
        self._base: sqlite3.Connection | None = None

    def __enter__(self) -> "TranslationStore":
        self._lock = self._published.with_name(f".{TRANSLATIONS_NAME}.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise StateError("another `site-client augment-text` is working on this data set: wait for it") from error
        try:
            self._base = self._begin()
        except sqlite3.DatabaseError as error:
            self._lock.close()
            raise DataError(
                f"{self._unfinished.name} of a data set is damaged: delete it and run `site-client augment-text` again"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._base is not None:
            self._base.close()
        if self._lock is not None:
            self._lock.close()

    def missing(self, sentences: Iterable[str]) -> list[str]:
        """Those that are not translated yet, in their order."""
        query = "SELECT 1 FROM sentence WHERE key = ?"
        return [item for item in sentences if self._open.execute(query, (self._key(item),)).fetchone() is None]

    def add(self, translated: Iterable[tuple[str, str]]) -> None:
        """Keep a batch of sentences with their translations; it survives a kill from here on.

        Raises:
            DataError: the disk is full, or failing.
        """
        rows = [(self._key(sentence), text) for sentence, text in translated]
        try:
            with self._open:
                self._open.executemany("INSERT OR REPLACE INTO sentence VALUES (?, ?)", rows)
        except sqlite3.OperationalError as error:
            raise DataError(
                f"translations cannot be written ({error}): make room in the data set's folder, and start again"
            ) from error

    def publish(self, sentences: Collection[str]) -> None:
        """Make these sentences what training reads. All others, of older recipes or withdrawn reports, are removed."""
        with self._open:
            self._open.execute("CREATE TEMP TABLE needed (key BLOB PRIMARY KEY) WITHOUT ROWID")
            self._open.executemany("INSERT INTO needed VALUES (?)", ((self._key(item),) for item in sentences))
            self._open.execute("DELETE FROM sentence WHERE key NOT IN (SELECT key FROM needed)")
            self._open.execute("DELETE FROM about")
            self._open.execute("INSERT INTO about VALUES (?)", (self._recipe,))
        self._open.execute("PRAGMA journal_mode = DELETE")  # all of it into the one file
        self._open.execute("VACUUM")  # what was removed is text of reports: it must not stay in free pages
        self._open.close()
        self._base = None
        fsync_file(self._unfinished)
        self._unfinished.replace(self._published)
        fsync_folder(self._published.parent)

    def _begin(self) -> sqlite3.Connection:
        if not self._unfinished.exists():
            copy = self._unfinished.with_name(f".{self._unfinished.name}.copy")
            copy.unlink(missing_ok=True)
            os.close(os.open(copy, os.O_CREAT | os.O_EXCL, 0o600))  # SQLite would make it readable by others
            if self._published.exists():
                shutil.copyfile(self._published, copy)
            copy.replace(self._unfinished)
        return open_working_database(self._unfinished, _TABLES, VERSION)

    @property
    def _open(self) -> sqlite3.Connection:
        assert self._base is not None, "open the store with `with`"
        return self._base

    def _key(self, sentence: str) -> bytes:
        return sentence_key(self._recipe, sentence)


def forget_translations(prepared: Path) -> None:
    """Remove what there is of a data set that needs none any more: it is text of reports that were withdrawn."""
    for name in (TRANSLATIONS_NAME, *(f"{TRANSLATIONS_NAME}.unfinished{end}" for end in ("", "-wal", "-shm"))):
        (prepared / name).unlink(missing_ok=True)
