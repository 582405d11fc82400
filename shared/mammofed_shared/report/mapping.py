"""What the columns of a hospital's table of structured findings mean: a YAML file, validated, applied row by row.

A value that the mapping does not list is left out and counted; one that it maps to nothing (``null``) is known and left
out. Shipped mappings are in ``mappings/``; docs/reports.md teaches how to write one.
"""

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from mammofed_shared.config.base import Settings
from mammofed_shared.config.loading import load
from mammofed_shared.errors import ConfigurationError
from mammofed_shared.report.exam_facts import ExamFacts, Kind
from mammofed_shared.report.grammar import DENSITIES, DEPTHS, FINDINGS, LATERALITIES, POSITIONS
from mammofed_shared.report.rows import Columns, Counts

_SHIPPED = Path(str(resources.files("mammofed_shared.report"))) / "mappings"
_WHOLE = re.compile(r"-?\d+\.0+")
"""``2.0``: a number that passed through a program which knows no empty integers."""

_WORDS: Mapping[str, frozenset[str]] = {
    "finding": frozenset(FINDINGS),
    "value": frozenset(("positive", "negative")),
    "subtype": frozenset(word for noun in FINDINGS.values() for word in noun.subtypes),
    "laterality": frozenset(LATERALITIES.values()),
    "position": frozenset(POSITIONS),
    "depth": frozenset(DEPTHS),
    "density": frozenset(DENSITIES),
    "birads": frozenset("0123456"),
    "label": frozenset(("present", "absent")),
}
"""What a value may be mapped to, by role: the vocabulary of ``grammar.py``."""


def _plain(cell: object) -> str:
    text = str(cell).strip().lower()
    return text[: text.index(".")] if _WHOLE.fullmatch(text) else text


def _text(name: object) -> object:
    return name.strip().lower() if isinstance(name, str) else name


def _texts(values: object) -> object:
    """Keys and targets as text: YAML reads ``0: 1`` as two numbers."""
    if not isinstance(values, dict):
        return values
    return {_plain(key): str(word) if type(word) is int else word for key, word in values.items()}


ColumnName = Annotated[str, BeforeValidator(_text)]


class Reading(Settings):
    """How one column is read."""

    column: ColumnName
    values: Annotated[dict[str, str | None] | None, BeforeValidator(_texts)] = None
    """Value → word of ours, or null for a value that says nothing here. Without it the column holds our own words."""
    separator: str | None = None
    """Divides several values in one cell; the first that means something counts."""

    def words(self, cells: Mapping[str, str], role: str, counts: Counts) -> Iterator[str]:
        """The words of ours that a row's cell means, in order."""
        cell = cells.get(self.column, "")
        for part in cell.split(self.separator) if self.separator else (cell,):
            value = _plain(part)
            if not value:
                continue
            known = self.values if self.values is not None else {word.lower(): word for word in _WORDS[role]}
            word = known.get(value)
            counts[f"unmapped_{role}"] += value not in known
            if word is not None:
                yield word

    def word(self, cells: Mapping[str, str], role: str, counts: Counts) -> str | None:
        """The first of ``words``."""
        return next(self.words(cells, role, counts), None)


class FindingRule(Settings):
    """How a row becomes one structured finding; a row may match several rules."""

    finding: Reading
    value: Reading | None = None
    """Without it a finding that stands in a row is positive."""
    subtype: tuple[Reading, ...] = ()
    """The first that gives a subtype of this finding counts."""
    laterality: Reading | None = None
    position: Reading | None = None
    depth: Reading | None = None

    def read(self, cells: Mapping[str, str], counts: Counts) -> dict[str, str] | None:
        """The finding in words of ours, without what is not known of it; None where the row has none."""
        finding = self.finding.word(cells, "finding", counts)
        value = self.value.word(cells, "value", counts) if self.value else "positive"
        if finding is None or value is None:
            return None
        said = {"finding": finding, "value": value}
        subtypes = (word for reading in self.subtype for word in reading.words(cells, "subtype", counts))
        subtype = next((word for word in subtypes if word in FINDINGS[finding].subtypes), None)
        if subtype:
            said["subtype"] = subtype
        for role, reading in (("laterality", self.laterality), ("position", self.position), ("depth", self.depth)):
            word = reading.word(cells, role, counts) if reading else None
            if word:
                said[role] = word
        return said


class KindRule(Settings):
    """Screening or diagnostic by regular expressions that are searched in a description; both or neither: unknown."""

    column: ColumnName
    screening: str
    diagnostic: str

    def read(self, cells: Mapping[str, str]) -> Kind | None:
        cell = cells.get(self.column, "")
        screening, diagnostic = (
            bool(re.search(pattern, cell, re.IGNORECASE)) for pattern in (self.screening, self.diagnostic)
        )
        if screening == diagnostic:
            return None
        return "screening" if screening else "diagnostic"

    @model_validator(mode="after")
    def _compiles(self) -> "KindRule":
        for pattern in (self.screening, self.diagnostic):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"no regular expression: {error}") from error
        return self


class AbsentRule(Settings):
    """Findings that an exam is known not to have, by its BI-RADS category, where no row says that it has one."""

    birads: tuple[Annotated[int, Field(ge=0, le=6)], ...]
    findings: tuple[Literal["mass", "calcification", "asymmetry", "architectural_distortion"], ...]


class AttributesMapping(Settings):
    """A table of structured findings: one row a finding, several rows an exam."""

    accession: ColumnName | None = None
    study: ColumnName | None = None
    patient: ColumnName | None = None
    date: ColumnName | None = None
    findings: tuple[FindingRule, ...] = Field(min_length=1)
    density: Reading | None = None
    birads: Reading | None = None
    kind: KindRule | None = None
    labels: dict[str, Reading] = Field(default_factory=dict)
    """Label → how a row says it is ``present`` or ``absent``; present in one row is present in the exam."""
    absent: AbsentRule | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> "AttributesMapping":
        if self.accession is None and self.study is None:
            raise ValueError("expected accession or study, the column that names the exam")
        for role, reading in self._readings():
            wrong = {word for word in (reading.values or {}).values() if word is not None} - _WORDS[role]
            if wrong:
                allowed = ", ".join(sorted(_WORDS[role]))
                raise ValueError(
                    f"{role}, column {reading.column}: expected {allowed}, found {', '.join(sorted(wrong))}"
                )
        return self

    def columns(self) -> Columns:
        """The columns that say whose a row is."""
        return Columns(self.study, self.accession, self.patient, self.date)

    def finding_columns(self) -> tuple[str, ...]:
        """Columns of which a table must have at least one."""
        return tuple(dict.fromkeys(rule.finding.column for rule in self.findings))

    def facts_of(self, cells: Mapping[str, str], counts: Counts) -> ExamFacts:
        """What one row says, without whose it is."""
        said = [item for rule in self.findings if (item := rule.read(cells, counts)) is not None]
        birads = self.birads.word(cells, "birads", counts) if self.birads else None
        labels = {name: reading.word(cells, "label", counts) for name, reading in self.labels.items()}
        return ExamFacts(
            attributes=tuple(said),
            labels={name: word == "present" for name, word in labels.items() if word is not None},
            density=self.density.word(cells, "density", counts) if self.density else None,
            birads=None if birads is None else int(birads),
            kind=self.kind.read(cells) if self.kind else None,
        )

    def _readings(self) -> Iterator[tuple[str, Reading]]:
        for rule in self.findings:
            yield "finding", rule.finding
            yield from (("subtype", reading) for reading in rule.subtype)
            for role in ("value", "laterality", "position", "depth"):
                if (reading := getattr(rule, role)) is not None:
                    yield role, reading
        yield from (("label", reading) for reading in self.labels.values())
        for role in ("density", "birads"):
            if (reading := getattr(self, role)) is not None:
                yield role, reading


def with_absent_findings(facts: ExamFacts, rule: AbsentRule | None) -> ExamFacts:
    """One exam's merged facts, with the findings that its BI-RADS category rules out said to be absent."""
    said = facts.attributes
    if rule is None or said is None or facts.birads not in rule.birads:
        return facts
    if any(item["value"] == "positive" for item in said):
        return facts
    named = {item["finding"] for item in said}
    absent = tuple({"finding": name, "value": "negative"} for name in rule.findings if name not in named)
    return ExamFacts(
        facts.report, (*said, *absent), facts.labels, facts.density, facts.birads, facts.kind,
        facts.patient, facts.shifted_day, facts.years_to_cancer, facts.years_followed, facts.teacher,
    )  # fmt: skip


def load_mapping(name: str) -> AttributesMapping:
    """A shipped mapping by its name, or the one in a YAML file.

    Raises:
        ConfigurationError: there is none, or it is wrong; the message names the key.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return load(Path(name), AttributesMapping)
    shipped = sorted(path.stem for path in _SHIPPED.glob("*.yaml"))
    if name not in shipped:
        raise ConfigurationError(
            f"attributes_mapping {name!r}: expected one of {', '.join(shipped)}, or the path of a YAML file"
        )
    return load(_SHIPPED / f"{name}.yaml", AttributesMapping)
