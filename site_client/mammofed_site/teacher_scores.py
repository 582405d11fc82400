"""MIRAI's risks of the exams of one data set, kept one by one while they are computed, so that a kill loses only one.

``<folder>/teacher/<dataset>.sqlite``. A score belongs to the weights, the exam and its four prepared images: other
weights or a changed image ask for another one, and what was computed before stays.
"""

import fcntl
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from mammofed_shared.errors import DataError, StateError
from mammofed_shared.report.exam_facts import Teacher
from mammofed_site.working_database import open_working_database

_VERSION = 1
_TABLE = """
CREATE TABLE IF NOT EXISTS score (
    weights TEXT NOT NULL, exam TEXT NOT NULL, images TEXT NOT NULL,
    year1 REAL NOT NULL, year2 REAL NOT NULL, year3 REAL NOT NULL, year4 REAL NOT NULL, year5 REAL NOT NULL,
    PRIMARY KEY (weights, exam, images)
) WITHOUT ROWID;
"""


class TeacherScores:
    """Open it with ``with``; only one process can.

    Args:
        weights: digest of MIRAI's weights.
    """

    def __init__(self, path: Path, weights: str) -> None:
        self._path = path
        self._weights = weights
        self._lock: IO[str] | None = None
        self._base: sqlite3.Connection | None = None

    def __enter__(self) -> "TeacherScores":
        """Open what there is.

        Raises:
            StateError: another process is scoring this data set.
            DataError: the file is damaged.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = self._path.with_name(f".{self._path.name}.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise StateError("another `site-client teach` is working on this data set: wait for it") from error
        try:
            self._base = open_working_database(self._path, _TABLE, _VERSION)
        except sqlite3.DatabaseError as error:
            self._lock.close()
            raise DataError(f"{self._path} is damaged: delete it and run `site-client teach` again") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._base is not None:
            self._base.close()
        if self._lock is not None:
            self._lock.close()

    def of(self, exams: Mapping[str, str]) -> dict[str, Teacher]:
        """The scores that are there of these exams: pseudonym → digest of its images."""
        rows = self._open.execute(
            "SELECT exam, images, year1, year2, year3, year4, year5 FROM score WHERE weights = ?", (self._weights,)
        )
        return {exam: tuple(risks) for exam, images, *risks in rows if exams.get(exam) == images}

    def add(self, exam: str, images: str, risks: Teacher) -> None:
        """Keep the score of one exam; it survives a kill from here on.

        Raises:
            DataError: the disk is full, or failing.
        """
        try:
            with self._open:
                self._open.execute(
                    "INSERT OR REPLACE INTO score VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (self._weights, exam, images, *risks),
                )
        except sqlite3.OperationalError as error:
            raise DataError(
                f"teacher scores cannot be written ({error}): make room in the site's folder, and start again"
            ) from error

    @property
    def _open(self) -> sqlite3.Connection:
        assert self._base is not None, "open the scores with `with`"
        return self._base
