"""The two texts of a sample of pretraining."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mammofed_shared.exam import Exam, Report
from mammofed_shared.report.phrasings import NUM_VARIANTS, phrasing
from mammofed_shared.report.sentences import sentences_in
from mammofed_shared.report.templates import structured_findings


def no_translation(text: str) -> str | None:
    """The lookup of a site that has translated nothing."""
    return None


def text_pair(
    exam: Exam, random: np.random.Generator, translations: Callable[[str], str | None] = no_translation
) -> tuple[str, str]:
    """The text of a sample and its second text (paper: Instance and Dataset Augmentation).

    Of a report with both sections: findings and impression. Of one with a single section: that, and its translation
    there and back where the site has one, else its sentences in another order (what the authors' released code draws,
    and then drops). Of structured findings: the plain sentences, in which zero-shot prompts are written, too, and
    another phrasing of the same facts, drawn anew each time.

    Args:
        exam: one that has a text.
        random: the sample's own.
        translations: a text → it, translated there and back; None where the site has not translated it.
    """
    assert exam.report is not None, "samples are of exams that have a text"
    if exam.attributes is not None:
        return exam.report.findings, _other_phrasing(exam, exam.attributes, random)
    text = only_section(exam.report)
    if text is None:
        return exam.report.findings, exam.report.impression
    translated = translations(text)
    if translated is not None and translated != text:
        return text, translated
    sentences = sentences_in(text)
    return text, " ".join(sentences[index] for index in random.permutation(len(sentences)))


def only_section(report: Report) -> str | None:
    """The text of a report that has findings or impression alone; None where it has both."""
    return None if report.findings and report.impression else report.findings or report.impression


def _other_phrasing(exam: Exam, attributes: Sequence[Mapping[str, str]], random: np.random.Generator) -> str:
    assert exam.report is not None
    plain = exam.report.findings
    findings = structured_findings(attributes)
    variants = (
        phrasing(findings, exam.density, exam.birads, exam=exam.exam, variant=int(variant))
        for variant in random.permutation(NUM_VARIANTS)
    )
    # Of few facts some variants are the plain text, though never all of them.
    return next((text for text in variants if text != plain), plain)
