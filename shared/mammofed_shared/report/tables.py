"""A hospital's CSV files beside its images: reports, structured attributes, labels; docs/data.md lists the columns.

A row belongs to an exam by its accession number or study UID. Both are replaced by pseudonyms while the file is read,
so no identifier outlives this module.
"""

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mammofed_shared.errors import DataError
from mammofed_shared.exam import Report
from mammofed_shared.report.sections import split_report

Pseudonym = Callable[[str, str], str]
"""(kind, identifier) → pseudonym; the kinds are ``accession`` and ``study``."""

ATTRIBUTE_COLUMNS = ("finding", "value", "subtype", "laterality", "position", "depth")
"""Columns of an attributes CSV besides the exam's; all but the first two may be missing or empty."""

_EXAM_COLUMNS = {"accession": "accession", "study_uid": "study"}
_DENSITIES = ("A", "B", "C", "D")


@dataclass(frozen=True, slots=True)
class Labels:
    """What an exam is known to show: finding → present, and the density A–D."""

    findings: dict[str, bool] = field(default_factory=dict)
    density: str | None = None


def read_reports(path: Path, pseudonym: Pseudonym) -> dict[str, Report]:
    """Reports by exam, from ``findings`` and ``impression``, or from ``report``, which is split by its headings."""
    reports: dict[str, Report] = {}
    for exam, row in _rows(path, pseudonym, any_of=("report", "findings", "impression")):
        if "report" in row:
            reports[exam] = split_report(row["report"])
        else:
            reports[exam] = Report(row.get("findings", ""), row.get("impression", ""))
    return reports


def read_attributes(path: Path, pseudonym: Pseudonym) -> dict[str, list[dict[str, str]]]:
    """Structured findings by exam, in the order of the file, each without its empty fields."""
    attributes: dict[str, list[dict[str, str]]] = {}
    for exam, row in _rows(path, pseudonym, any_of=("finding",)):
        given = {name: row[name].lower() for name in ATTRIBUTE_COLUMNS if row.get(name)}
        if given.get("value") not in ("positive", "negative") or "finding" not in given:
            raise DataError("a row of the attributes CSV needs a finding, and positive or negative as its value")
        attributes.setdefault(exam, []).append(given)
    return attributes


def read_labels(path: Path, pseudonym: Pseudonym) -> dict[str, Labels]:
    """Labels by exam: each column but ``density`` is a finding with 0 or 1; an empty cell means nobody knows."""
    labels: dict[str, Labels] = {}
    for exam, row in _rows(path, pseudonym):
        findings: dict[str, bool] = {}
        density = row.pop("density", "").upper() or None
        if density not in (*_DENSITIES, None):
            raise DataError("column density of the labels CSV: expected A, B, C, D or nothing")
        for name, value in row.items():
            if value not in ("0", "1", ""):
                raise DataError(f"column {name} of the labels CSV: expected 0, 1 or nothing in every row")
            if value:
                findings[name] = value == "1"
        labels[exam] = Labels(findings, density)
    return labels


def _rows(path: Path, pseudonym: Pseudonym, any_of: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    """The exam's pseudonym and the other columns of each row, names in lower case, values stripped."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            names = {name: name.strip().lower() for name in reader.fieldnames or ()}
            key = next((name for name in _EXAM_COLUMNS if name in names.values()), None)
            if key is None or (any_of and not set(any_of) & set(names.values())):
                wanted = " or ".join(_EXAM_COLUMNS) + (f", and {' or '.join(any_of)}" if any_of else "")
                raise DataError(f"a CSV of the data set lacks a column: expected {wanted}; see docs/data.md")
            for raw in reader:
                row = _stripped(raw, names)
                # A CSV may carry both keys; the one that is not used is an identifier all the same.
                identifier = [row.pop(name, "") for name in _EXAM_COLUMNS][list(_EXAM_COLUMNS).index(key)]
                if identifier:
                    yield pseudonym(_EXAM_COLUMNS[key], identifier), row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"a CSV of the data set cannot be read: {type(error).__name__}") from error


def _stripped(raw: Mapping[str | None, object], names: Mapping[str, str]) -> dict[str, str]:
    return {names[name]: str(value or "").strip() for name, value in raw.items() if name is not None}
