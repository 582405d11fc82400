"""The published schema: rows that break it are refused, and the documentation prints it."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mammofed_shared.data.columns import IMAGES, TABLES, check_rows, schema_of
from mammofed_shared.errors import DataError

DOCS = Path(__file__).parents[3] / "docs/data.md"
ROW: dict[str, Any] = {
    **dict.fromkeys(("image", "exam", "patient", "path", "png_sha256"), "a"),
    **dict.fromkeys(("rows", "columns", "crop_top", "crop_left", "crop_height", "crop_width", "file_number"), 1),
    **dict.fromkeys(("flipped", "turned", "inverted"), False),
    "laterality": "L",
    "laterality_from": "image",
    "view": "CC",
    "view_from": "view_code",
    "vendor": "hologic",
    "intent": "presentation",
    "window": "paper",
    "spacing_rows_mm": 0.2,
    "spacing_columns_mm": None,
    "flagged": "",
    "grey": [0] * 16,
}


def check(**changes: Any) -> None:
    check_rows(pa.RecordBatch.from_pylist([ROW | changes], schema=schema_of(IMAGES)), IMAGES)


def test_rows_of_the_schema_pass() -> None:
    check()
    check(flagged="flipped_by_content;implant", spacing_rows_mm=None)


@pytest.mark.parametrize(
    ("changes", "column"),
    [
        ({"laterality": "B"}, "laterality"),
        ({"vendor": "Mrs Jones' X-ray"}, "vendor"),
        ({"flagged": "implant;strange"}, "flagged"),
        ({"flagged": "duplicate"}, "flagged"),
        ({"patient": None}, "patient"),
        ({"grey": None}, "grey"),
        ({"crop_height": 0}, "crop_height"),
        ({"spacing_rows_mm": -0.1}, "spacing_rows_mm"),
    ],
)
def test_a_cell_that_breaks_the_schema_is_refused_by_its_column(changes: dict[str, Any], column: str) -> None:
    with pytest.raises(DataError, match=f"column {column}:"):
        check(**changes)


def test_the_documentation_prints_every_column_with_its_meaning() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for name, columns in TABLES.items():
        section = text.split(f"**{name}.parquet**")[1].split("**")[0]
        printed = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
        assert [(cells[0].strip("| `"), cells[2].removesuffix(" |")) for cells in printed] == [
            (column.name, column.meaning) for column in columns
        ]
