"""What a hospital's own tables and reports say of one exam, and how rows about the same exam become one statement."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mammofed_shared.exam import Report
from mammofed_shared.report.birads import most_severe

Kind = Literal["screening", "diagnostic"]
Teacher = tuple[float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class ExamFacts:
    """Everything that a hospital's own tables and reports say of one exam; None or empty where they say nothing."""

    report: Report | None = field(default=None, repr=False)
    """Sections as in the source, without boilerplate and signature; identifiers are not searched for yet."""
    attributes: tuple[Mapping[str, str], ...] | None = None
    """One mapping a finding, in words of ``grammar.py``. Empty: a table knows the exam and no finding of it."""
    labels: Mapping[str, bool] = field(default_factory=dict)
    """Finding → present."""
    density: str | None = None
    """A to D."""
    birads: int | None = None
    """0 to 6."""
    kind: Kind | None = None
    patient: str | None = None
    """Pseudonym, where a table names the patient."""
    shifted_day: int | None = None
    """``Pseudonyms.shifted_day``, where a table has patient and date."""
    years_to_cancer: int | None = None
    """Full years to a diagnosis of cancer; None: none is known, see ``years_followed``."""
    years_followed: int | None = None
    """Full years for which the patient is known to have been followed."""
    teacher: Teacher | None = None
    """MIRAI's risk of 1 to 5 years."""


_ONE_VALUE = ("density", "kind", "patient", "years_to_cancer", "years_followed", "teacher")
"""Fields of which rows of one table must say the same."""


def num_words(report: Report) -> int:
    """Words of both sections together, as white space divides them."""
    return len(report.findings.split()) + len(report.impression.split())


def contradictions(first: ExamFacts, second: ExamFacts) -> list[str]:
    """Fields in which two rows about one exam say different things."""
    said = [(name, getattr(first, name), getattr(second, name)) for name in _ONE_VALUE]
    fields = [name for name, one, other in said if one is not None and other is not None and one != other]
    labels = any(second.labels.get(name, value) != value for name, value in first.labels.items())
    return [*fields, *(["labels"] if labels else [])]


def merged(rows: Sequence[ExamFacts]) -> ExamFacts:
    """The rows of one table about one exam as one statement; values that contradict each other are left out.

    Reports are appended in order (a later one is an addendum), exact repeats once. Of several BI-RADS categories the
    most severe counts: tables give one for each breast or finding. Of several days the first counts.
    """
    if len(rows) == 1:
        return rows[0]
    attributes = [row.attributes for row in rows if row.attributes is not None]
    return ExamFacts(
        report=_appended([row.report for row in rows if row.report is not None]),
        attributes=tuple(_once(item for items in attributes for item in items)) if attributes else None,
        labels=_agreed_labels(rows),
        birads=most_severe(row.birads for row in rows if row.birads is not None),
        shifted_day=min((row.shifted_day for row in rows if row.shifted_day is not None), default=None),
        **{name: _agreed(getattr(row, name) for row in rows) for name in _ONE_VALUE},
    )


def first_known(tables: Iterable[ExamFacts]) -> ExamFacts:
    """Each field from the first table that knows it; labels are united, an earlier table counts more."""
    result = ExamFacts()
    for facts in tables:
        changes = {
            name: getattr(facts, name)
            for name in ("report", "attributes", "birads", "shifted_day", *_ONE_VALUE)
            if getattr(result, name) is None and getattr(facts, name) is not None
        }
        if facts.labels:
            changes["labels"] = {**facts.labels, **result.labels}
        if changes:
            result = replace(result, **changes)
    return result


def _appended(reports: Sequence[Report]) -> Report | None:
    different = _once(reports)
    if not different:
        return None
    return Report(
        findings=" ".join(item.findings for item in different if item.findings),
        impression=" ".join(item.impression for item in different if item.impression),
    )


def _once(items: Iterable[Any]) -> list[Any]:
    """The items in their order, equal ones once; mappings cannot be hashed, and an exam has few of them."""
    found: list[Any] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def _agreed(values: Iterable[Any]) -> Any:
    said = {value for value in values if value is not None}
    return said.pop() if len(said) == 1 else None


def _agreed_labels(rows: Sequence[ExamFacts]) -> Mapping[str, bool]:
    said: dict[str, set[bool]] = {}
    for row in rows:
        for name, value in row.labels.items():
            said.setdefault(name, set()).add(value)
    return {name: values.pop() for name, values in said.items() if len(values) == 1}
