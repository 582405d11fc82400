"""Reading a prepared table some thousand rows at a time, so that memory does not grow with the data set."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mammofed_shared.errors import DataError

_ROWS = 16384


def batches(table: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file with some of its columns, in order.

    Raises:
        DataError: the table is missing, or was written by another version.
    """
    try:
        # Without these two, pyarrow holds the whole of each column beside its decoded part.
        with pq.ParquetFile(table, pre_buffer=False, buffer_size=1 << 16) as file:
            missing = [column for column in columns if column not in file.schema_arrow.names]
            if missing:
                raise DataError(f"{table.name} has no column {missing[0]}: run `site-client preprocess` again")
            yield from file.iter_batches(batch_size=_ROWS, columns=list(columns))
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{table.name} cannot be read: run `site-client preprocess` again") from error
