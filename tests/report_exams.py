"""Exams that are reports alone, without images: for tests of text adaptation."""

from itertools import cycle, islice, product

from mammofed_shared.exam import Exam, Report, Split
from mammofed_shared.report.grammar import LATERALITIES, StructuredFinding
from mammofed_shared.report.templates import narrative_report

FINDINGS = ("mass", "calcification")


def report_exams(num: int, split: Split = Split.TRAIN, dataset: str = "one") -> list[Exam]:
    """Exams of as many patients, with narrative reports of both sections that differ in what was found."""
    kinds = product(FINDINGS, (True, False), LATERALITIES, "ABCD")
    return [
        Exam(
            exam=f"{split}-{dataset}-{number:03d}",
            patient=f"{split}-{dataset}-{number:03d}",
            dataset=dataset,
            split=split,
            report=_report(*kind),
            images=(),
        )
        for number, kind in enumerate(islice(cycle(kinds), num))
    ]


def _report(finding: str, present: bool, laterality: str, density: str) -> Report:
    found = [StructuredFinding(finding, present, laterality=laterality if present else None)]
    return narrative_report(found, density, 0 if present else 1)
