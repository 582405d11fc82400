"""A hospital's CSV files beside its images: what each row says of its exam; docs/reports.md lists the columns.

Each function yields the keys of a row (``Row.keys``) and what it says. A value that is not understood is counted under
``bad_<column>`` and left out; a row that says nothing is counted under ``nothing_said``.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from mammofed_shared.exam import Report
from mammofed_shared.pseudonyms import Pseudonyms
from mammofed_shared.report.birads import birads_of_cell
from mammofed_shared.report.exam_facts import ExamFacts, Kind, Teacher
from mammofed_shared.report.grammar import DENSITIES
from mammofed_shared.report.mapping import AttributesMapping
from mammofed_shared.report.rows import Columns, Counts, Row, read_rows
from mammofed_shared.report.sections import split_report, without_boilerplate

Said = tuple[tuple[str, ...], ExamFacts]

_TEXTS = ("report", "findings", "impression")
_KINDS: Mapping[str, Kind] = {kind: kind for kind in get_args(Kind)}
_OF_THE_EXAM = ("density", "birads", "kind")
_NO_CANCER = 100
"""MIRAI writes 100 years to cancer for a patient without one."""
_TEACHER = tuple((f"year{year}", f"{year}_year_risk") for year in range(1, 6))
"""Our name of a column, and MIRAI's own."""
_LOGITS = tuple(f"logit{year}" for year in range(1, 6))


def read_reports(path: Path, names: Pseudonyms, counts: Counts) -> Iterator[Said]:
    """Reports from one column, divided by its headings, or from ``findings`` and ``impression``."""
    for row in read_rows(path, "reports", names, counts, Columns(), _TEXTS):
        text, findings, impression = (row.cells.get(name, "") for name in _TEXTS)
        report = split_report(text) if text else Report(without_boilerplate(findings), without_boilerplate(impression))
        has_text = bool(report.findings or report.impression)
        counts["no_text"] += not has_text
        yield _said(row, counts, report=report if has_text else None)


def read_labels(path: Path, names: Pseudonyms, counts: Counts) -> Iterator[Said]:
    """Labels: each other column is a finding with 0 or 1; an empty cell means that nobody knows."""
    for row in read_rows(path, "labels", names, counts, Columns(), ()):
        labels: dict[str, bool] = {}
        for name, value in row.cells.items():
            if name in _OF_THE_EXAM or not value:
                continue
            if value in ("0", "1"):
                labels[name] = value == "1"
            else:
                counts["bad_label"] += 1
        yield _said(row, counts, labels=labels)


def read_attributes(path: Path, names: Pseudonyms, counts: Counts, mapping: AttributesMapping) -> Iterator[Said]:
    """Structured findings, as the mapping reads them."""
    for row in read_rows(path, "attributes", names, counts, mapping.columns(), mapping.finding_columns()):
        said = mapping.facts_of(row.cells, counts)
        yield row.keys, _with_person(row, said)


def read_outcomes(path: Path, names: Pseudonyms, counts: Counts) -> Iterator[Said]:
    """Years to cancer and of follow-up, in MIRAI's convention: 100 or nothing is no cancer."""
    needed = ("years_to_cancer", "years_to_last_followup", "years_followed")
    for row in read_rows(path, "outcomes", names, counts, Columns(), needed):
        to_cancer = _years(row, counts, "years_to_cancer")
        followed = _years(row, counts, "years_to_last_followup", "years_followed")
        if to_cancer is not None and to_cancer >= _NO_CANCER:
            to_cancer = None
        yield _said(row, counts, years_to_cancer=to_cancer, years_followed=followed)


def read_teacher(path: Path, names: Pseudonyms, counts: Counts) -> Iterator[Said]:
    """MIRAI's risk of 1 to 5 years, each in 0..1, or the logits of these; a row without all five says nothing.

    ``site-client teach`` names exams by the column ``exam``, their pseudonym.
    """
    for row in read_rows(path, "teacher", names, counts, Columns(exam="exam"), (*_TEACHER[0], _LOGITS[0])):
        cells = [next((row.cells[name] for name in pair if row.cells.get(name)), "") for pair in _TEACHER]
        logits = [row.cells.get(name, "") for name in _LOGITS]
        of_logits = not any(cells) and any(logits)
        yield _said(row, counts, teacher=_risks(_of_logits(logits) if of_logits else cells, counts))


def _said(row: Row, counts: Counts, **facts: object) -> Said:
    """What a row says, with the columns that every table may have."""
    said = ExamFacts(
        density=_density(row.cells.get("density", ""), counts),
        birads=_birads(row.cells.get("birads", ""), counts),
        kind=_kind(row.cells.get("kind", ""), counts),
        **facts,  # type: ignore[arg-type]
    )
    counts["nothing_said"] += said == ExamFacts()
    return row.keys, _with_person(row, said)


def _with_person(row: Row, said: ExamFacts) -> ExamFacts:
    # The constructor, because dataclasses.replace costs more than reading the row.
    return ExamFacts(
        said.report, said.attributes, said.labels, said.density, said.birads, said.kind,
        row.patient, row.shifted_day, said.years_to_cancer, said.years_followed, said.teacher,
    )  # fmt: skip


def _density(cell: str, counts: Counts) -> str | None:
    counts["bad_density"] += bool(cell) and cell.upper() not in DENSITIES
    return cell.upper() if cell.upper() in DENSITIES else None


def _birads(cell: str, counts: Counts) -> int | None:
    category = birads_of_cell(cell) if cell else None
    counts["bad_birads"] += bool(cell) and category is None
    return category


def _kind(cell: str, counts: Counts) -> Kind | None:
    counts["bad_kind"] += bool(cell) and cell.lower() not in _KINDS
    return _KINDS.get(cell.lower())


def _years(row: Row, counts: Counts, *columns: str) -> int | None:
    """Full years; a part of a year counts as none of it, as MIRAI divides days by 365."""
    cell = next((row.cells[name] for name in columns if row.cells.get(name)), "")
    if not cell:
        return None
    try:
        years = float(cell)
    except ValueError:
        years = -1.0
    if not 0 <= years <= 150:  # refuses NaN too
        counts["bad_years"] += 1
        return None
    return int(years)


def _of_logits(cells: list[str]) -> list[str]:
    """The cells of the risks that logits stand for; what is no number stays as it is."""
    try:
        return [repr(1 / (1 + math.exp(-float(cell)))) for cell in cells]
    except (ValueError, OverflowError):
        return cells


def _risks(cells: list[str], counts: Counts) -> Teacher | None:
    try:
        year1, year2, year3, year4, year5 = map(float, cells)
    except ValueError:
        counts["bad_risk"] += any(cells)
        return None
    risks = (year1, year2, year3, year4, year5)
    if all(0 <= risk <= 1 for risk in risks):
        return risks
    counts["bad_risk"] += 1
    return None
