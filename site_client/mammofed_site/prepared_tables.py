"""Writes the three tables of a prepared data set row by row: checked against the schema, and put in place together.

Memory does not grow with the number of rows, and equal rows give equal bytes.
"""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mammofed_shared.data.columns import TABLES, check_rows, schema_of
from mammofed_shared.data.prepared import PREPROCESSING_FILE
from mammofed_shared.files import fsync_file, fsync_folder

Row = Mapping[str, Any]

_BATCH = 4096


class PreparedTables:
    """The tables while they are written; use it with ``with``. Nothing is seen of them before ``commit``."""

    def __init__(self, prepared: Path) -> None:
        self._prepared = prepared
        self._schemas = {name: schema_of(columns) for name, columns in TABLES.items()}
        self._waiting: dict[str, list[Row]] = {name: [] for name in TABLES}
        self._writers: dict[str, pq.ParquetWriter] = {}

    def __enter__(self) -> "PreparedTables":
        """Begin the new tables beside the old ones."""
        for name, schema in self._schemas.items():
            self._writers[name] = pq.ParquetWriter(self._unfinished(name), schema)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, writer in self._writers.items():
            writer.close()
            self._unfinished(name).unlink(missing_ok=True)

    def add(self, table: str, row: Row) -> None:
        """Add a row to ``images``, ``exams`` or ``refused``.

        Raises:
            DataError: it, or one added shortly before, does not obey the schema.
        """
        self._waiting[table].append(row)
        if len(self._waiting[table]) >= _BATCH:
            self._flush(table)

    def commit(self) -> None:
        """Put the new tables in the place of the old ones.

        The data set counts as not prepared from the first to the last of them; whoever is killed in between prepares
        it again, without decoding.
        """
        for name, writer in self._writers.items():
            self._flush(name)
            writer.close()
            fsync_file(self._unfinished(name))
        (self._prepared / PREPROCESSING_FILE).unlink(missing_ok=True)
        for name in self._writers:
            self._unfinished(name).replace(self._prepared / f"{name}.parquet")
        fsync_folder(self._prepared)

    def _flush(self, table: str) -> None:
        rows = self._waiting[table]
        if rows:
            batch = pa.RecordBatch.from_pylist(rows, schema=self._schemas[table])
            check_rows(batch, TABLES[table])
            self._writers[table].write_batch(batch)
            rows.clear()

    def _unfinished(self, table: str) -> Path:
        return self._prepared / f".{table}.parquet.writing"
