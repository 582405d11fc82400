"""Samples of text adaptation: reports of one split, and the draw of another exam's impression for some of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mammofed_shared.exam import Exam, Split
from mammofed_shared.report.phrasings import NUM_VARIANTS, phrasing
from mammofed_shared.report.templates import structured_findings

_MOST_DRAWS = 20


@dataclass(frozen=True, slots=True)
class TextSample:
    """The text of one exam."""

    exam: Exam


@dataclass(frozen=True, slots=True)
class DrawnText:
    """A text as it is shown once: findings and impression, and whether both are of one exam.

    ``is_own`` is None where the exam has no two sections; then ``findings`` is all of its text.
    """

    findings: str
    impression: str
    is_own: bool | None


class ReportTexts:
    """The exams of a split that have a text.

    Args:
        exams: of one site.
        swapped_share: share of the reports with both sections whose impression is another exam's.
    """

    def __init__(self, exams: Sequence[Exam], split: Split, swapped_share: float) -> None:
        self.samples = [TextSample(exam) for exam in exams if exam.split is split and exam.report is not None]
        self._impressions = [
            sample.exam.report.impression for sample in self.samples if sample.exam.report and has_pair(sample.exam)
        ]
        self._swapped_share = swapped_share

    def draw(self, index: int, random: np.random.Generator) -> DrawnText:
        """The text of a sample. An exam with structured findings says them in other words each time."""
        exam = self.samples[index].exam
        if exam.attributes is not None:
            variant = int(random.integers(NUM_VARIANTS))
            findings = structured_findings(exam.attributes)
            return DrawnText(phrasing(findings, exam.density, exam.birads, exam=exam.exam, variant=variant), "", None)
        report = exam.report
        assert report is not None, "samples are of exams that have a text"
        if not has_pair(exam):
            return DrawnText(report.findings or report.impression, "", None)
        impression = self._other(report.impression, random) if random.random() < self._swapped_share else None
        return DrawnText(report.findings, impression or report.impression, impression is None)

    def _other(self, own: str, random: np.random.Generator) -> str | None:
        """The impression of another exam. The same words would be no swap; None where no others are found."""
        for _ in range(_MOST_DRAWS):
            drawn = self._impressions[int(random.integers(len(self._impressions)))]
            if drawn != own:
                return drawn
        return None


def has_pair(exam: Exam) -> bool:
    """Whether the exam's text is a report with findings and impression."""
    is_report = exam.attributes is None and exam.report is not None
    return bool(is_report and exam.report and exam.report.findings and exam.report.impression)
