"""Counts a site's prepared tables, in a worker process: pyarrow lives here; only the columns that count are read."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mammofed_shared.errors import DataError, RefusalCode
from mammofed_shared.files import write_whole
from mammofed_shared.protocol.quality import TABLES, CountTable
from mammofed_site.disclosure import COUNTED_FILE, Cell, Counts

_COLUMN_OF = {"vendor": "vendor", "view": "view", "intent": "intent", "preset": "window", "density": "density"}
"""Property of a count → the column that holds it (``data/columns.py``)."""


def write_quality_counts(datasets: Sequence[tuple[str, Path]], out: Path) -> None:
    """Count the prepared data sets (name and folder of each) and leave the exact counts in the folder ``out``.

    Raises:
        DataError: a table cannot be read, or holds no images, or was written by another version of this software.
    """
    write_whole(out / COUNTED_FILE, count_prepared(datasets).model_dump_json(), mode=0o600)


def count_prepared(datasets: Sequence[tuple[str, Path]]) -> Counts:
    """Exact counts over all data sets together; a patient who is in two of them is one.

    Raises:
        DataError: as ``write_quality_counts``.
    """
    rows = {unit: _rows(datasets, unit) for unit in ("images", "exams")}
    if not rows["images"].num_rows:
        raise DataError("the prepared data sets hold no image: see what `site-client preprocess` refused")
    return Counts(
        num_images=rows["images"].num_rows,
        num_exams=rows["exams"].num_rows,
        num_patients=pc.count_distinct(rows["images"]["patient"]).as_py(),
        tables={table.by: _cells(rows[table.unit], table) for table in TABLES},
    )


def _rows(datasets: Sequence[tuple[str, Path]], unit: str) -> pa.Table:
    columns = ["patient", *(_COLUMN_OF[table.by] for table in TABLES if table.unit == unit)]
    parts = []
    for name, prepared in datasets:
        try:
            parts.append(pq.read_table(prepared / f"{unit}.parquet", columns=columns))
        except OSError as error:
            raise DataError(f"data set {name}: {unit}.parquet cannot be read: run `site-client preprocess`") from error
        except pa.ArrowException as error:
            raise _written_otherwise(f"data set {name}: {unit}.parquet") from error
        if parts[-1].column_names != columns or parts[-1]["patient"].null_count:
            raise _written_otherwise(f"data set {name}: {unit}.parquet")
    return pa.concat_tables(parts)


def _cells(rows: pa.Table, table: CountTable) -> dict[str, Cell]:
    words = pc.utf8_lower(pc.fill_null(rows[_COLUMN_OF[table.by]].cast(pa.string()), "unknown"))
    counted = pa.table({"word": words, "patient": rows["patient"]}).group_by("word")
    cells = dict.fromkeys(table.words, Cell())
    for row in counted.aggregate([("patient", "count"), ("patient", "count_distinct")]).to_pylist():
        if row["word"] not in cells:
            raise _written_otherwise(f"{table.unit}.parquet, column {_COLUMN_OF[table.by]}")
        cells[row["word"]] = Cell(num=row["patient_count"], num_patients=row["patient_count_distinct"])
    return cells


def _written_otherwise(where: str) -> DataError:
    return DataError(
        f"{where}: not as this version of mammofed writes it: run `site-client preprocess` again",
        RefusalCode.PREPROCESSING_MISMATCH,
    )
