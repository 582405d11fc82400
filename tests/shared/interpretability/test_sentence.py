"""Sentences of a report, and which of them loses its likeness to the image."""

import pytest
import torch

from mammofed_shared.exam import Report
from mammofed_shared.interpretability.sentence import (
    chance_of_naming,
    chosen,
    names_finding,
    report_sentences,
    sentence_drops,
)

SENTENCES = ["There is a mass.", "There are no calcifications.", "BI-RADS category 0."]
TEXTS = torch.eye(3)


def test_sentences_of_both_sections_are_taken_once() -> None:
    report = Report("Density is C. There is a mass.", "There is a mass. BI-RADS 0.")

    assert report_sentences(report) == ["Density is C.", "There is a mass.", "BI-RADS 0."]
    assert report_sentences(Report("", "")) == []
    assert report_sentences(None) == []


def test_the_sentence_that_loses_most_comes_first_with_its_share() -> None:
    image = torch.tensor([[0.6, 0.8, 0.0], [0.8, 0.6, 0.0]])
    ablated = torch.tensor([[0.0, 0.8, 0.6], [0.4, 0.4, 0.2]])
    drops = sentence_drops(image, ablated, SENTENCES, TEXTS)

    assert [item.sentence for item in drops] == SENTENCES
    assert [item.drop for item in drops] == pytest.approx([0.5, 0.1, -0.4])
    assert [item.share for item in drops] == pytest.approx([5 / 6, 1 / 6, 0])
    assert chosen(drops) == drops[0]


def test_no_sentence_is_chosen_where_none_loses() -> None:
    image = torch.tensor([[1.0, 0.0, 0.0]])

    assert chosen(sentence_drops(image, image, SENTENCES, TEXTS)) is None
    assert chosen(sentence_drops(image, image, [], TEXTS[:0])) is None


def test_of_equal_sentences_the_first_of_the_report_is_chosen() -> None:
    image, ablated = torch.tensor([[0.5, 0.5, 0.5]]), torch.zeros(1, 3)

    assert [item.sentence for item in sentence_drops(image, ablated, SENTENCES, TEXTS)] == SENTENCES


@pytest.mark.parametrize(
    ("sentence", "names"),
    [
        ("There is a spiculated mass in the upper left breast.", True),
        ("Masses: obscured, left, anterior depth.", True),
        ("There are no masses in the left breast.", False),
        ("Masses: none.", False),
        ("Massive artefact.", False),
        ("There is a cluster of calcifications.", False),
    ],
)
def test_a_sentence_names_a_finding_that_it_does_not_deny(sentence: str, names: bool) -> None:
    assert names_finding(sentence, "mass") is names


def test_chance_is_the_share_of_sentences_that_name_it() -> None:
    assert chance_of_naming(SENTENCES, "mass") == pytest.approx(1 / 3)
    assert chance_of_naming(SENTENCES, "calcification") == 0
    assert chance_of_naming([], "mass") == 0
