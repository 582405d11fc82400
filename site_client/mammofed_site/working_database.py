"""A SQLite file in which long work is kept piece by piece, so that a killed call goes on with the next one."""

import sqlite3
from pathlib import Path


def open_working_database(path: Path, tables: str, version: int) -> sqlite3.Connection:
    """Open the file, with its tables; a new one is made.

    A kill loses nothing that was committed; a power cut may lose the last pieces, which are then done again.

    Args:
        tables: SQL that makes those that are missing.

    Raises:
        sqlite3.DatabaseError: it is of another version, or damaged.
    """
    base = sqlite3.connect(path)
    base.execute("PRAGMA journal_mode = WAL")
    base.execute("PRAGMA synchronous = NORMAL")
    if base.execute("PRAGMA user_version").fetchone()[0] not in (0, version):
        base.close()
        raise sqlite3.DatabaseError("another version")
    base.executescript(tables)
    base.execute(f"PRAGMA user_version = {version}")
    return base
