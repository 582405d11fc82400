"""Reports of text adaptation: whose impression, what is hidden, and what is cut."""

import dataclasses

import numpy as np
import pytest

from mammofed_shared.data.masked_reports import NO_PAIR, MaskedReportReader, joined
from mammofed_shared.data.report_texts import ReportTexts
from mammofed_shared.exam import Exam, Report, Split
from mammofed_shared.report.masked_tokens import NOT_ASKED, read_mask_vocabulary
from mammofed_shared.report.tokenize import ReportTokenizer
from prepared import TEXT_ENCODER
from report_exams import report_exams

EXAMS = report_exams(16)
CLS, SEP = 2, 3


def texts_of(exams: list[Exam], swapped_share: float = 0.5) -> ReportTexts:
    return ReportTexts(exams, Split.TRAIN, swapped_share)


def reader_of(exams: list[Exam], max_tokens: int = 128, swapped_share: float = 0.5) -> MaskedReportReader:
    return MaskedReportReader(
        texts_of(exams, swapped_share),
        ReportTokenizer(TEXT_ENCODER, max_tokens),
        read_mask_vocabulary(TEXT_ENCODER),
        max_tokens=max_tokens,
        masked_share=0.15,
    )


def generators(num: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, number]) for number in range(num)]


def test_half_of_the_reports_have_an_impression_of_another_exam_in_other_words() -> None:
    texts = texts_of(EXAMS)
    impressions = {exam.report.impression for exam in EXAMS if exam.report}
    num_swapped = 0
    for number in range(400):
        exam = texts.samples[number % 16].exam
        drawn = texts.draw(number % 16, np.random.default_rng(number))
        assert exam.report is not None and drawn.findings == exam.report.findings
        assert drawn.is_own is (drawn.impression == exam.report.impression)
        assert drawn.impression in impressions
        num_swapped += drawn.is_own is False

    assert num_swapped / 400 == pytest.approx(0.5, abs=0.08)


def test_impressions_come_from_the_same_split_only() -> None:
    elsewhere = [
        dataclasses.replace(exam, report=Report("Elsewhere.", "Other split.")) for exam in report_exams(16, Split.TEST)
    ]
    texts = texts_of([*EXAMS, *elsewhere], swapped_share=1.0)

    drawn = [texts.draw(index, np.random.default_rng(index)) for index in range(16)]

    assert len(texts.samples) == 16
    assert all(text.impression != "Other split." and text.is_own is False for text in drawn)


def test_where_all_impressions_are_the_same_nothing_is_called_swapped() -> None:
    same = [dataclasses.replace(exam, report=Report(f"Finding {exam.exam}.", "Negative.")) for exam in EXAMS]

    drawn = [texts_of(same, 1.0).draw(index, np.random.default_rng(index)) for index in range(16)]

    assert all(text.is_own for text in drawn)


def test_exams_without_two_sections_have_no_pair() -> None:
    attributes = ({"finding": "mass", "value": "positive"},)
    stored = Report("There is a mass.", "")
    exams = [
        EXAMS[0],
        dataclasses.replace(EXAMS[1], report=Report("", "Negative.")),
        dataclasses.replace(EXAMS[2], report=stored, attributes=attributes),
        dataclasses.replace(EXAMS[3], report=None),
    ]
    reader = reader_of(exams)

    batch = reader.batch(range(3), generators(3))

    assert len(reader.texts.samples) == 3, "an exam without a text is no sample"
    assert (batch.pairs == NO_PAIR).tolist() == [False, True, True]
    assert ((batch.ids == SEP).sum(axis=1) == [2, 1, 1]).all()
    assert len({reader.texts.draw(2, random).findings for random in generators(20)}) > 1, (
        "said in other words each time"
    )


def test_a_batch_is_padded_and_each_sample_depends_on_its_own_generator() -> None:
    reader = reader_of(EXAMS)

    batch = reader.batch(range(8), generators(8))
    alone = reader.batch([5], generators(8)[5:6])

    length = alone.ids.shape[1]
    assert batch.ids.shape == batch.mask.shape == batch.targets.shape
    assert (batch.ids[5, :length] == alone.ids[0]).all() and (batch.targets[5, :length] == alone.targets[0]).all()
    assert (batch.mask.sum(axis=1)[5], batch.pairs[5]) == (length, alone.pairs[0])
    assert (batch.targets[batch.mask == 0] == NOT_ASKED).all()
    assert (reader.batch(range(8), generators(8, seed=1)).ids != batch.ids).any()


def test_sections_are_joined_and_cut_with_their_closing_tokens_kept() -> None:
    findings, impression = (
        np.array([CLS, *range(10, 40), SEP], np.int32),
        np.array([CLS, *range(50, 70), SEP], np.int32),
    )

    whole, was_cut = joined(findings, impression, 100)
    assert whole.tolist() == [CLS, *range(10, 40), SEP, *range(50, 70), SEP] and not was_cut
    both, was_cut = joined(findings, impression, 20)
    assert both.tolist() == [CLS, *range(10, 18), SEP, *range(50, 59), SEP] and was_cut
    findings_only, _ = joined(findings, impression[-3:], 20)
    assert findings_only.tolist() == [CLS, *range(10, 26), SEP, 69, SEP]
    impression_only, _ = joined(findings[:4], impression, 20)
    assert impression_only.tolist() == [CLS, 10, 11, 12, *range(50, 65), SEP]


def test_texts_that_are_cut_are_counted() -> None:
    assert reader_of(EXAMS).batch(range(4), generators(4)).num_cut == 0
    short = reader_of(EXAMS, max_tokens=12).batch(range(4), generators(4))
    assert short.num_cut == 4 and short.ids.shape[1] == 12
