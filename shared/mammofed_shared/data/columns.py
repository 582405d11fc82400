"""The published schema of a prepared data set: every column of its three tables, and the check that rows obey it.

docs/data.md prints these lists for users; a test holds the two together.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mammofed_shared.dicom.deidentify import VENDORS
from mammofed_shared.dicom.reasons import Kind, Reason
from mammofed_shared.errors import DataError
from mammofed_shared.exam import AGE_BANDS, Laterality, Split, View
from mammofed_shared.report.scrub import KINDS


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its type, what it says, whether it may be empty, and what its values are limited to.

    ``words`` is a closed list; ``is_list``: several of them, joined by ``;``, or none. ``least`` and ``most`` are
    allowed themselves; ``length`` is that of a list.
    """

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False
    words: frozenset[str] | None = None
    is_list: bool = False
    least: float | None = None
    most: float | None = None
    length: int | None = None


def _one_of(words: Iterable[str]) -> frozenset[str]:
    return frozenset(str(word) for word in words)


_TEXT, _FLAG, _INT, _LONG = pa.string(), pa.bool_(), pa.int32(), pa.int64()
_NAMED_BY = _one_of(("image", "series", "frame", "view_position", "view_code", "profile"))

IMAGES = (
    Column("image", _TEXT, "pseudonym of the SOP instance"),
    Column("exam", _TEXT, "pseudonym of the study"),
    Column("patient", _TEXT, "pseudonym of the patient"),
    Column("laterality", _TEXT, "side of the breast, L or R", words=_one_of(Laterality)),
    Column("laterality_from", _TEXT, "which attribute said the side", words=_NAMED_BY),
    Column("view", _TEXT, "CC or MLO", words=_one_of(View)),
    Column("view_from", _TEXT, "which attribute said the view", words=_NAMED_BY),
    Column("path", _TEXT, "the PNG, relative to the data set's folder"),
    Column("vendor", _TEXT, "manufacturer, a word of an allow-list or `other`", words=_one_of(VENDORS)),
    Column("intent", _TEXT, "`presentation`, or `unsaid` by the header", words=_one_of(("presentation", "unsaid"))),
    Column("window", _TEXT, "the preset that was in fact applied", words=_one_of(("paper", "voi", "percentile"))),
    Column("rows", _INT, "rows of the stored image", least=1),
    Column("columns", _INT, "columns of the stored image", least=1),
    Column("spacing_rows_mm", pa.float64(), "distance of rows after the resize", nullable=True, least=0),
    Column("spacing_columns_mm", pa.float64(), "distance of columns after the resize", nullable=True, least=0),
    Column("crop_top", _INT, "the breast's box in the stored image: first row,", least=0),
    Column("crop_left", _INT, "first column,", least=0),
    Column("crop_height", _INT, "rows,", least=1),
    Column("crop_width", _INT, "columns", least=1),
    Column("flipped", _FLAG, "mirrored, so that the chest wall is left"),
    Column("turned", _FLAG, "turned over vertically, as the patient orientation says"),
    Column("inverted", _FLAG, "the grey scale was turned over, by the tags or by content"),
    Column(
        "flagged",
        _TEXT,
        "suspicions that did not refuse it, joined by `;`",
        words=_one_of(reason for reason in Reason if reason.kind is Kind.FLAG),
        is_list=True,
    ),
    Column("grey", pa.list_(_INT), "histogram of the breast's pixels in the PNG, 16 equal bins of 0 to 255", length=16),
    Column("png_sha256", _TEXT, "digest of the PNG file"),
    Column("file_number", _LONG, "local number of the source file"),
)
EXAMS = (
    Column("exam", _TEXT, "pseudonym of the study"),
    Column("patient", _TEXT, "pseudonym of the patient"),
    Column("split", _TEXT, "part of the cohort, drawn by patient", words=_one_of(Split)),
    Column("day", _INT, "days since the patient's first exam here", nullable=True, least=0),
    Column(
        "kind", _TEXT, "screening or diagnostic, where known", nullable=True, words=_one_of(("screening", "diagnostic"))
    ),
    Column("birads", pa.int8(), "BI-RADS category 0 to 6, where known", nullable=True, least=0, most=6),
    Column(
        "cohort",
        _TEXT,
        "positive or negative by the case definition that was asked for",
        nullable=True,
        words=_one_of(("positive", "negative")),
    ),
    Column("findings", _TEXT, "section of the report, scrubbed", nullable=True),
    Column("impression", _TEXT, "section of the report, scrubbed", nullable=True),
    Column("text_origin", _TEXT, "where the text came from", nullable=True, words=_one_of(("report", "attributes"))),
    Column("num_words", _INT, "words of findings and impression together", least=0),
    Column(
        "scrubbed",
        _TEXT,
        "kinds of identifiers that stood in the report, joined by `;`",
        words=_one_of(KINDS),
        is_list=True,
    ),
    Column("density", _TEXT, "breast composition A to D", nullable=True, words=_one_of("ABCD")),
    Column("age_band", _TEXT, "age at the exam in years, by tens", nullable=True, words=_one_of(AGE_BANDS)),
    Column(
        "years_to_cancer",
        pa.int16(),
        "full years from the exam to a cancer diagnosis; null: none is known",
        nullable=True,
    ),
    Column("years_followed", pa.int16(), "full years of follow-up without cancer", nullable=True),
    Column("teacher", pa.list_(pa.float32()), "MIRAI's risk of 1 to 5 years", nullable=True, length=5),
    Column("labels", _TEXT, "JSON: finding → 0 or 1"),
    Column("attributes", _TEXT, "JSON: the structured findings", nullable=True),
)
REFUSED = (
    Column("file_number", _LONG, "local number of the source file"),
    Column(
        "reason",
        _TEXT,
        "one word of the closed list",
        words=_one_of(reason for reason in Reason if reason.kind is not Kind.FLAG),
    ),
    Column("detail", _TEXT, "numbers and our own words; never a value of the header"),
    Column("is_error", _FLAG, "the file cannot be trusted; else it is sound and no image to train on"),
)

TABLES = {"images": IMAGES, "exams": EXAMS, "refused": REFUSED}
"""The tables of a prepared data set; each is a file ``<name>.parquet``."""


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema of a table; each field carries its meaning."""
    return pa.schema([pa.field(item.name, item.type, item.nullable, {"meaning": item.meaning}) for item in columns])


def check_rows(rows: pa.RecordBatch, columns: Iterable[Column]) -> None:
    """Check that rows obey the schema: types, no empty cell where none may be, and words of the closed lists.

    Raises:
        DataError: they do not; the message names the column.
    """
    for column in columns:
        values = rows.column(column.name)
        if values.type != column.type:
            raise DataError(f"column {column.name}: expected {column.type}, found {values.type}")
        if not column.nullable and values.null_count:
            raise DataError(f"column {column.name}: {values.null_count} of {len(values)} cells are empty")
        if column.words is not None and not _are_words(values, column):
            raise DataError(f"column {column.name}: a word that is not on its list")
        if column.length is not None and not _are_long(values, column.length):
            raise DataError(f"column {column.name}: a list that has not {column.length} values")
        if not _are_in_range(values, column):
            raise DataError(f"column {column.name}: a value that is not between {column.least} and {column.most}")


def _are_words(values: pa.Array, column: Column) -> bool:
    assert column.words is not None
    if column.is_list:
        values = pc.list_flatten(pc.split_pattern(values, ";"))
        values = pc.filter(values, pc.not_equal(values, ""))
    known = pc.is_in(values, pa.array(sorted(column.words)))
    return bool(pc.all(pc.or_(known, pc.is_null(values)), min_count=0).as_py())


def _are_long(values: pa.Array, length: int) -> bool:
    return bool(pc.all(pc.equal(pc.list_value_length(values), length), min_count=0).as_py())


def _are_in_range(values: pa.Array, column: Column) -> bool:
    if (column.least is None and column.most is None) or values.null_count == len(values):
        return True
    least, most = (pc.min_max(values)[name].as_py() for name in ("min", "max"))
    return (column.least is None or least >= column.least) and (column.most is None or most <= column.most)
