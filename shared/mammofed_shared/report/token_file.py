"""Tokens of texts on disk: one SQLite file for one tokenizer, shared by all loaders of a site and kept between visits.

A text is known by its digest. Its tokens are the text in other letters, so the file is readable by its owner only. It
only saves time: where it cannot be read or written, texts are tokenised as without it.
"""

import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mammofed_shared.report.tokenize import Encoded

logger = logging.getLogger(__name__)

MOST_BYTES = 2 * 2**30
"""Of one file. Orders of sentences that are drawn anew each time would let it grow without end."""
_VERSION = 1
_AT_ONCE = 500  # SQLite's oldest limit of parameters is 999
_TABLES = """
CREATE TABLE IF NOT EXISTS tokens (
    text BLOB PRIMARY KEY,      -- digest
    ids BLOB NOT NULL,          -- int32
    is_cut INTEGER NOT NULL
) WITHOUT ROWID;
"""


class TokenFile:
    """Tokens by the digest of their text; for any number of threads and processes.

    A batch is written whole or not at all, whenever the process is killed.

    Args:
        path: made where it is not there yet, with its folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open = threading.local()
        self._is_usable = True
        self._is_full = False

    def __reduce__(self) -> tuple[type["TokenFile"], tuple[Path]]:
        """To another process only the path goes: it opens the file itself."""
        return TokenFile, (self._path,)

    def read(self, digests: Sequence[bytes]) -> dict[bytes, Encoded]:
        """Those that are there."""
        found: dict[bytes, Encoded] = {}
        if not self._is_usable:
            return found
        try:
            base = self._base()
            for start in range(0, len(digests), _AT_ONCE):
                part = digests[start : start + _AT_ONCE]
                asked = ",".join("?" * len(part))
                for digest, ids, is_cut in base.execute(f"SELECT * FROM tokens WHERE text IN ({asked})", part):
                    found[digest] = Encoded(np.frombuffer(ids, np.int32), bool(is_cut))
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
        return found

    def write(self, tokens: Mapping[bytes, Encoded]) -> None:
        """Keep these; where another process is writing for long, or the file is full, they are not kept."""
        if not self._is_usable or self._is_full:
            return
        rows = [(digest, item.ids.tobytes(), item.is_cut) for digest, item in tokens.items()]
        try:
            base = self._base()
            with base:
                base.executemany("INSERT OR IGNORE INTO tokens VALUES (?, ?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                self._is_full = True
                logger.info("the token cache has its full size, or the disk has; further texts are not kept")
            elif getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
                self._give_up(error)

    def _base(self) -> sqlite3.Connection:
        # A connection serves one thread of one process; a forked process must neither use nor close its parent's.
        if getattr(self._open, "process", None) != os.getpid():
            self._open.inherited = getattr(self._open, "base", None)
            self._open.base = self._connect()
            self._open.process = os.getpid()
        base: sqlite3.Connection = self._open.base
        return base

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Locked: two processes must not both make it.
        with self._path.with_name(f".{self._path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite would make it readable by others
            base = sqlite3.connect(self._path)
            # A kill loses nothing; a power cut may lose the last batches, which are then tokenised again.
            base.execute("PRAGMA journal_mode = WAL")
            base.execute("PRAGMA synchronous = NORMAL")
            page_size = base.execute("PRAGMA page_size").fetchone()[0]
            base.execute(f"PRAGMA max_page_count = {MOST_BYTES // page_size}")
            if base.execute("PRAGMA user_version").fetchone()[0] not in (0, _VERSION):
                raise sqlite3.DatabaseError("another version")
            base.executescript(_TABLES)
            base.execute(f"PRAGMA user_version = {_VERSION}")
        return base

    def _give_up(self, error: Exception) -> None:
        self._is_usable = False
        logger.warning("the token cache %s cannot be used (%s): delete it; training goes on without", self._path, error)
