"""From accepted images and what the hospital's tables say of their exam to rows: which exams count, and their text.

What one file says alone was decided in ``dicom/preprocess.py``; what needs several files or a table is decided here.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

from mammofed_shared.config.site import ChoiceSettings, DatasetSettings, SplitSettings
from mammofed_shared.data.columns import EXAMS, IMAGES
from mammofed_shared.dicom.preprocess import Prepared, Refusal
from mammofed_shared.dicom.reasons import BY_WORD, Kind, Reason
from mammofed_shared.exam import Laterality, Report, Split, View
from mammofed_shared.pseudonyms import Pseudonyms
from mammofed_shared.report.exam_facts import ExamFacts, num_words
from mammofed_shared.report.scrub import scrub
from mammofed_shared.report.templates import sentences_from_attributes
from mammofed_site.exam_facts import DatasetFacts
from mammofed_site.intake_journal import Accepted

Row = dict[str, Any]
HashOf = Callable[[str], str]
"""Word → keyed hash."""

_CACHED_WORDS = 1 << 16
"""Reports repeat few words; hashing each anew would take half of the time of scrubbing."""


@dataclass(frozen=True, slots=True)
class DecidedExam:
    """What becomes of the images of one exam: a row and its images, or refusals, or both (duplicates).

    ``is_of_another``: the tables name another patient for this exam, so nothing of them was taken.
    """

    row: Row | None
    images: list[Accepted]
    refused: list[tuple[int, Refusal]]
    is_of_another: bool = False


_OF_ITEM = tuple(column.name for column in IMAGES if column.name not in ("flagged", "file_number"))
_EXAM_NAMES = frozenset(column.name for column in EXAMS)
_FOUR_VIEWS = frozenset((side.value, view.value) for side in Laterality for view in View)


def decided_exams(
    accepted: Iterable[Accepted],
    facts: DatasetFacts,
    dataset: DatasetSettings,
    split: SplitSettings,
    names: Pseudonyms,
) -> Iterator[DecidedExam]:
    """The exams of a data set, one after the other; ``accepted`` must come in the order of exams."""
    cohort = facts.cohort() if dataset.choose.cohort == "embed" else {}
    hash_of = lru_cache(maxsize=_CACHED_WORDS)(names.of_word)
    for exam, group in groupby(accepted, key=lambda image: image.item.exam):
        images, refused = [], []
        for image in group:
            if image.verdict is None:
                images.append(image)
            else:
                refused.append((image.number, Refusal(image.verdict, image.verdict.sentence)))
        if not images:
            yield DecidedExam(None, [], refused)
            continue
        accessions = sorted({image.item.accession for image in images} - {""})
        known = facts.of(exam, accessions)
        part = next((cohort[key] for key in (exam, *accessions) if key in cohort), None)
        is_of_another = known.patient not in (None, images[0].item.patient)
        if is_of_another:
            known, part = ExamFacts(), None
        reason = left_out([image.item for image in images], known, dataset.choose, part)
        if reason is not None:
            refused += [(image.number, Refusal(reason, reason.sentence)) for image in images]
            yield DecidedExam(None, [], refused, is_of_another)
        else:
            row = exam_row(images, known, part, dataset, split_of(images[0].item.patient, split, names), hash_of)
            yield DecidedExam(row, images, refused, is_of_another)


def left_out(images: Sequence[Prepared], facts: ExamFacts, choice: ChoiceSettings, cohort: str | None) -> Reason | None:
    """Why an exam does not count, or None where it does; what nobody recorded leaves no exam out."""
    if choice.kind == "screening" and kind_of(images, facts) == "diagnostic":
        return Reason.DIAGNOSTIC_EXAM
    if cohort is None and facts.birads is not None and facts.birads not in choice.birads:
        return Reason.BIRADS_OUTSIDE
    if choice.exams == "complete" and {(item.laterality, item.view) for item in images} != _FOUR_VIEWS:
        return Reason.INCOMPLETE_EXAM
    return None


def kind_of(images: Sequence[Prepared], facts: ExamFacts) -> str | None:
    """Screening or diagnostic: as the hospital's tables say, or else as all its images say that say anything."""
    return facts.kind or _agreed(item.kind or None for item in images)


def image_row(accepted: Accepted) -> Row:
    """Row of images.parquet."""
    row = {name: getattr(accepted.item, name) for name in _OF_ITEM}
    return row | {"flagged": ";".join(flags_of(accepted)), "file_number": accepted.number}


def flags_of(accepted: Accepted) -> list[str]:
    """Reason words of the suspicions that did not refuse an image."""
    flags = [word for word in accepted.item.flagged.split(";") if word]
    return [*flags, Reason.SHARED_PIXELS.value] if accepted.is_shared else flags


def refused_row(number: int, refusal: Refusal) -> Row:
    """Row of refused.parquet."""
    reason = BY_WORD[refusal.reason]
    return {
        "file_number": number,
        "reason": reason.value,
        "detail": refusal.detail or reason.sentence,
        "is_error": reason.kind is Kind.ERROR,
    }


def exam_row(
    images: Sequence[Accepted],
    facts: ExamFacts,
    cohort: str | None,
    dataset: DatasetSettings,
    split: Split,
    hash_of: HashOf,
) -> Row:
    """Row of exams.parquet; ``hash_of`` is ``Pseudonyms.of_word``."""
    first = images[0]
    days = [image.item.shifted_day for image in images if image.item.shifted_day is not None]
    row: Row = {
        "exam": first.item.exam,
        "patient": first.item.patient,
        "split": split.value,
        "day": min(days) - first.first_day if days and first.first_day is not None else None,
        "kind": kind_of([image.item for image in images], facts),
        "cohort": cohort,
        "age_band": _agreed(image.item.age_band for image in images),
        "labels": json.dumps({name: int(value) for name, value in sorted(facts.labels.items())}),
        "attributes": None if facts.attributes is None else json.dumps([dict(item) for item in facts.attributes]),
    }
    row |= {
        name: getattr(facts, name) for name in ("birads", "density", "years_to_cancer", "years_followed", "teacher")
    }
    row |= _text(first.item.exam, {word for image in images for word in image.item.known}, facts, dataset, hash_of)
    assert set(row) == _EXAM_NAMES
    return row


def split_of(patient: str, split: SplitSettings, names: Pseudonyms) -> Split:
    """The part to which a patient belongs for good, whatever else the data set holds."""
    share = names.share(patient)
    if share < split.train:
        return Split.TRAIN
    return Split.VALIDATION if share < split.train + split.validation else Split.TEST


def _agreed(values: Iterable[str | None]) -> str | None:
    """What all say that say anything."""
    said = {value for value in values if value is not None}
    return said.pop() if len(said) == 1 else None


def _text(
    exam: str, known: set[str], facts: ExamFacts, dataset: DatasetSettings, hash_of: HashOf
) -> Mapping[str, object]:
    """Findings and impression: of the report where there is one, else made from the structured findings."""
    report, found = _without_identifiers(facts.report, known, dataset.reports_with_identifiers, hash_of)
    origin = None if report is None else "report"
    if report is None and facts.attributes is not None:
        # The seed is the exam's own, so a sentence never changes with what else is in the data set.
        report = sentences_from_attributes(facts.attributes, density=facts.density, seed=int(exam[:8], 16))
        origin = "attributes"
    return {
        "findings": None if report is None else report.findings,
        "impression": None if report is None else report.impression,
        "text_origin": origin,
        "num_words": 0 if report is None else num_words(report),
        "scrubbed": ";".join(found),
    }


def _without_identifiers(
    report: Report | None, known: set[str], rule: str, hash_of: HashOf
) -> tuple[Report | None, list[str]]:
    """The report as the data set's rule wants it, and the kinds of identifiers that stood in it."""
    if report is None:
        return None, []
    findings, impression = (
        scrub(text, lambda word: hash_of(word) in known) for text in (report.findings, report.impression)
    )
    found = sorted({*findings.found, *impression.found})
    if rule == "keep" or not found:
        return report, found
    return (Report(findings.text, impression.text) if rule == "scrub" else None), found
