"""Rows of a hospital's CSV, one at a time: identifiers become pseudonyms here, a bad row is counted and passed over.

Nothing of a row gets into a message: a wrong header names the columns that were expected, everything else is a number
under a word of a closed list (docs/reports.md).
"""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mammofed_shared.errors import DataError
from mammofed_shared.pseudonyms import Pseudonyms

Counts = Counter[str]
"""How many rows, values or files something was true of, by a word of a closed list."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns that say whose a row is; None: this table has no such column."""

    study: str | None = "study_uid"
    accession: str | None = "accession"
    patient: str | None = "patient_id"
    date: str | None = "date"
    exam: str | None = None
    """Pseudonym of the study itself, as ``exams.parquet`` has it: a table that was made here from the prepared one."""


@dataclass(frozen=True, slots=True, repr=False)
class Row:
    """One row: ``keys`` are the pseudonyms of its study UID and accession number, the study's first.

    Of a row that names its exam by the pseudonym, that alone.
    """

    keys: tuple[str, ...]
    patient: str | None
    shifted_day: int | None
    cells: Mapping[str, str]
    """The other columns: names in lower case, values stripped."""


_NO_IDENTIFIER = frozenset(("", "na", "n/a", "none", "null", "nan", "unknown", "anonymous", "removed", "-", "?", "."))
_ROUNDED = re.compile(r"\d(?:[.,]\d+)?E\+\d+", re.IGNORECASE)
"""``4.45237E+15``: a spreadsheet has rounded the number, and several exams now share it."""
_PSEUDONYM = re.compile(r"[0-9a-f]{32}")
_DATE = re.compile(r"(\d{4})(-?)(\d\d)\2(\d\d)(?:[T ].*)?")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LONGEST_LINE = 1 << 20
"""Bytes; a binary file has no line ends."""


def read_rows(
    path: Path, table: str, names: Pseudonyms, counts: Counts, columns: Columns, any_of: Sequence[str]
) -> Iterator[Row]:
    """The rows of a CSV that name their exam; the file is never in memory as a whole.

    Comma, semicolon or tab divide the columns; text is UTF-8, and a line that is not is read as Windows-1252.

    Args:
        table: what the file is in the site's configuration, for messages.
        counts: is added to: ``rows``, ``by_exam``, ``by_study``, ``by_accession``, ``by_both``, and the reasons why a
            row or a value was passed over.
        any_of: columns of which at least one must be there; empty: none is needed.

    Raises:
        DataError: the file cannot be read, or its header lacks a column.
    """
    try:
        with path.open("rb") as file:
            yield from _rows(_Reader(file, counts), table, names, counts, columns, any_of)
    except OSError as error:
        raise DataError(f"the CSV of `{table}` cannot be read: {type(error).__name__}") from error


class _Reader:
    """Cells of each line; a line that is no CSV is counted, and the next one begins afresh."""

    def __init__(self, file: BinaryIO, counts: Counts) -> None:
        self._file, self._counts = file, counts
        self._first = self._text(file.readline(_LONGEST_LINE), is_first=True)
        # The header decides: a report may hold any of the three.
        bare = re.sub(r'"[^"]*"', "", self._first)
        self._delimiter = max(",;\t", key=bare.count)

    def __iter__(self) -> Iterator[list[str]]:
        # strict: a stray quotation mark must not glue the next patient's report to this one's.
        reader = csv.reader(self._lines(), delimiter=self._delimiter, strict=True)
        while True:
            try:
                yield next(reader)
            except StopIteration:
                return
            except csv.Error:
                self._counts["not_csv"] += 1

    def _lines(self) -> Iterator[str]:
        yield self._first
        while raw := self._file.readline(_LONGEST_LINE):
            yield self._text(raw)

    def _text(self, raw: bytes, is_first: bool = False) -> str:
        if is_first and raw.startswith(_UTF16):
            raise DataError("a CSV of the data set is UTF-16: save it as UTF-8")
        text, is_utf8 = decoded(raw.removeprefix(codecs.BOM_UTF8) if is_first else raw)
        if not is_utf8:
            self._counts["not_utf8"] += 1
        return text


def decoded(raw: bytes) -> tuple[str, bool]:
    """The text, and whether it was UTF-8; else Windows-1252, or Latin-1 where that has no character."""
    for encoding in ("utf-8", "cp1252"):
        try:
            return raw.decode(encoding), encoding == "utf-8"
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1"), False


def is_identifier(text: str) -> bool:
    """Whether a cell names one exam or patient, not nobody (``unknown``, ``0``) or several (a rounded number)."""
    return text.lower() not in _NO_IDENTIFIER and bool(text.strip("0")) and not _ROUNDED.fullmatch(text)


def _rows(
    reader: _Reader, table: str, names: Pseudonyms, counts: Counts, columns: Columns, any_of: Sequence[str]
) -> Iterator[Row]:
    lines = iter(reader)
    header = [name.strip().lower() for name in next(lines, [])]
    _check_header(header, table, columns, any_of)
    for cells in lines:
        if not any(cells):
            continue
        counts["rows"] += 1
        if len(cells) != len(header):
            counts["wrong_number_of_cells"] += 1
            continue
        row = _row(dict(zip(header, map(str.strip, cells), strict=True)), names, counts, columns)
        if row is not None:
            yield row


def _check_header(header: list[str], table: str, columns: Columns, any_of: Sequence[str]) -> None:
    keys = [name for name in (columns.accession, columns.study, columns.exam) if name]
    if not set(keys) & set(header) or (any_of and not set(any_of) & set(header)):
        wanted = " or ".join(keys) + (f", and {' or '.join(any_of)}" if any_of else "")
        raise DataError(f"the CSV of `{table}` lacks a column: expected {wanted}; see docs/reports.md")
    named = [name for name in header if name]
    if len(set(named)) != len(named):
        raise DataError(f"the CSV of `{table}` has two columns of one name")


def _row(cells: dict[str, str], names: Pseudonyms, counts: Counts, columns: Columns) -> Row | None:
    """The row without its identifiers; None where it names no exam."""
    # All of them leave the cells, used or not: they are identifiers all the same.
    study, accession, patient, date, exam = (
        cells.pop(name, "") if name else ""
        for name in (columns.study, columns.accession, columns.patient, columns.date, columns.exam)
    )
    keys = [
        names.of(kind, value) for kind, value in (("study", study), ("accession", accession)) if is_identifier(value)
    ]
    if _PSEUDONYM.fullmatch(exam):
        keys = [exam]
        counts["by_exam"] += 1
    elif not keys:
        counts["no_identifier"] += 1
        return None
    else:
        counts["by_both" if len(keys) == 2 else "by_study" if is_identifier(study) else "by_accession"] += 1
    person = names.of("patient", patient) if is_identifier(patient) else None
    day = None
    if date:
        match = _DATE.fullmatch(date)
        day = names.shifted_day(person, match[1] + match[3] + match[4]) if match and person else None
        # 01/02/2019 has two meanings, and a wrong day puts an exam into the wrong cohort.
        counts["bad_date"] += not match or (person is not None and day is None)
    return Row(tuple(keys), person, day, cells)
