"""Everything that the tables and reports of one data set say, joined by study UID or accession number."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from mammofed_shared.config.site import DatasetSettings
from mammofed_shared.data.cohort import CohortExam, Part, embed_cohort
from mammofed_shared.pseudonyms import Pseudonyms
from mammofed_shared.report.birads import birads_of
from mammofed_shared.report.exam_facts import ExamFacts, contradictions, first_known, merged
from mammofed_shared.report.mapping import AbsentRule, load_mapping, with_absent_findings
from mammofed_shared.report.rows import Counts
from mammofed_shared.report.tables import (
    Said,
    read_attributes,
    read_labels,
    read_outcomes,
    read_reports,
    read_teacher,
)
from mammofed_site.report_folder import read_report_folder

_BY_PRECEDENCE = ("labels", "reports", "outcomes", "teacher", "attributes")
"""Which table is believed first, where two say different things of one exam."""
_MOST_ROWS = 200
"""Rows of one table that may name one exam; a key with more is a placeholder that many patients share."""


class DatasetFacts:
    """What is known of the exams of one data set, by pseudonym of the study or of the accession number.

    ``counts`` holds, for each table, numbers under the words of docs/reports.md.
    """

    def __init__(self, absent: AbsentRule | None = None) -> None:
        self._absent = absent
        self._rows: dict[str, dict[str, list[ExamFacts]]] = {table: defaultdict(list) for table in _BY_PRECEDENCE}
        self._pairs: list[tuple[str, ...]] = []
        self._crowded: set[str] = set()
        self._counts: dict[str, Counts] = {}

    @property
    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Table → word → number; words that hold of nothing are absent."""
        return {table: dict(sorted((+counts).items())) for table, counts in self._counts.items()}

    def add(self, table: str, said: Iterable[Said], counts: Counts) -> None:
        """Register what the rows of one table say, each under all its keys."""
        rows = self._rows[table]
        self._counts[table] = counts
        for keys, facts in said:
            earlier = next((rows[key] for key in keys if key in rows), [])
            if facts in earlier:
                counts["repeated"] += 1
            elif earlier:
                for name in contradictions(earlier[0], facts):
                    counts[f"contradicting_{name}"] += 1
            # A row with a second key adds that key for what is known already; a repeat adds nothing.
            for key in keys:
                if key not in self._crowded and facts not in rows[key]:
                    rows[key].append(facts)
                if len(rows.get(key, ())) > _MOST_ROWS:
                    self._crowded.add(key)
                    del rows[key]
            counts["crowded_key"] += not self._crowded.isdisjoint(keys)
            if len(keys) > 1:
                self._pairs.append(keys)

    def of(self, study: str, accessions: Iterable[str]) -> ExamFacts:
        """What is known of one exam under any of its pseudonyms; nothing where rows name two patients for it."""
        return self._of((study, *accessions))

    def cohort(self) -> Mapping[str, Part]:
        """Pseudonym of study or accession number → part of the EMBED cohort; exams in neither part are absent.

        An exam takes part if the tables say its patient, its date, and whether it is screening or diagnostic.
        """
        exams: list[CohortExam] = []
        keys_of: dict[str, tuple[str, ...]] = {}
        for keys in self._exams():
            facts = self._of(keys)
            if facts.patient is None or facts.shifted_day is None or facts.kind is None:
                continue
            keys_of[keys[0]] = keys
            exams.append(CohortExam(keys[0], facts.patient, facts.shifted_day, facts.kind, facts.birads))
        return {key: part for exam, part in embed_cohort(exams).items() for key in keys_of[exam]}

    def _of(self, keys: tuple[str, ...]) -> ExamFacts:
        tables: list[ExamFacts] = []
        patients: set[str | None] = set()
        for table in _BY_PRECEDENCE:
            # By identity: one row stands under two keys.
            usable = (key for key in keys if key not in self._crowded)
            rows = {id(row): row for key in usable for row in self._rows[table].get(key, ())}.values()
            patients |= {row.patient for row in rows}
            if rows:
                tables.append(merged(list(rows)))
        if len(patients - {None}) > 1:
            # Nobody knows which of the two patients' reports and labels this exam's are.
            return ExamFacts()
        facts = first_known(tables)
        if facts.birads is None and facts.report is not None:
            facts = replace(facts, birads=birads_of(facts.report))
        facts = with_absent_findings(facts, self._absent)
        if facts.attributes == () and facts.density is None:
            # The table knows the exam, and there is nothing to make a sentence of.
            facts = replace(facts, attributes=None)
        return facts

    def _exams(self) -> Iterator[tuple[str, ...]]:
        """All keys, those together that a row names together."""
        partners: dict[str, set[str]] = defaultdict(set)
        for study, accession in self._pairs:
            partners[study].add(accession)
            partners[accession].add(study)
        seen: set[str] = set(self._crowded)
        for key in dict.fromkeys(key for rows in self._rows.values() for key in rows):
            if key in seen:
                continue
            group, waiting = [key], [key]
            seen.add(key)
            while waiting:
                for partner in sorted(partners.get(waiting.pop(), set()) - seen):
                    seen.add(partner)
                    group.append(partner)
                    waiting.append(partner)
            yield tuple(group)


def read_facts(dataset: DatasetSettings, names: Pseudonyms) -> DatasetFacts:
    """Read all that stands beside the images of a data set.

    Raises:
        DataError: a file cannot be read, or its header lacks a column.
        ConfigurationError: the attributes mapping is not right.
    """
    mapping = load_mapping(dataset.attributes_mapping) if dataset.attributes else None
    facts = DatasetFacts(mapping.absent if mapping else None)
    for table, path, read in (
        ("reports", dataset.reports, read_reports),
        ("labels", dataset.labels, read_labels),
        ("outcomes", dataset.outcomes, read_outcomes),
        ("teacher", dataset.teacher, read_teacher),
    ):
        if path is not None:
            reader = read_report_folder if table == "reports" and path.is_dir() else read
            facts.add(table, reader(path, names, counts := Counts()), counts)
    if dataset.attributes and mapping:
        facts.add("attributes", read_attributes(dataset.attributes, names, counts := Counts(), mapping), counts)
    return facts
