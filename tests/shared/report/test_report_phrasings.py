"""Phrasings of structured findings say what is recorded, all of it, and nothing else."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammofed_shared.report.grammar import DENSITIES, DEPTHS, FINDINGS, LATERALITIES, POSITIONS, StructuredFinding
from mammofed_shared.report.phrasings import ABSENCE, BIRADS, DENSITY, NUM_VARIANTS, PRESENCE, phrasing
from mammofed_shared.report.templates import sentences_from_attributes, structured_findings

NAMES = {
    "mass": {"mass", "masses"},
    "calcification": {"calcifications"},
    "asymmetry": {"asymmetry", "asymmetries"},
    "architectural_distortion": {"distortion", "distortions"},
}
SUBTYPES = {subtype for noun in FINDINGS.values() for subtype in noun.subtypes}
OF_DENSITY = {"A": "fatty", "B": "fibroglandular", "C": "heterogeneously", "D": "extremely"}
OF_BIRADS = {
    "negative": {1},
    "benign": {2, 3},
    "probably": {3},
    "incomplete": {0},
    "additional": {0},
    "interval": {3},
    "biopsy": {4},
    "sampling": {4},
    "suggestive": {5},
    "proven": {6},
    "known": {6},
}


def attributes_of_a_finding(name: str) -> st.SearchStrategy[dict[str, str]]:
    return st.fixed_dictionaries(
        {"finding": st.just(name), "value": st.sampled_from(["positive", "negative"])},
        optional={
            "subtype": st.sampled_from(FINDINGS[name].subtypes),
            "laterality": st.sampled_from(list(LATERALITIES.values())),
            "position": st.sampled_from(POSITIONS),
            "depth": st.sampled_from(DEPTHS),
        },
    )


ATTRIBUTES = st.lists(st.sampled_from(list(FINDINGS)).flatmap(attributes_of_a_finding), max_size=5)


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower()))


@settings(max_examples=400, deadline=None)
@given(
    ATTRIBUTES,
    st.none() | st.sampled_from(list(DENSITIES)),
    st.none() | st.integers(0, 6),
    st.integers(0, NUM_VARIANTS - 1),
    st.text("0123456789abcdef", min_size=1, max_size=8),
)
def test_a_phrasing_says_all_that_is_recorded_and_nothing_else(
    attributes: list[dict[str, str]], density: str | None, birads: int | None, variant: int, exam: str
) -> None:
    findings = structured_findings(attributes)

    said = words_of(phrasing(findings, density, birads, exam=exam, variant=variant))

    assert {name for name, words in NAMES.items() if words & said} == {item.finding for item in findings}
    assert SUBTYPES & said == {item.subtype for item in findings} - {None}
    assert set(POSITIONS) & said == {item.position for item in findings} - {None}
    assert set(DEPTHS) & said == {item.depth for item in findings} - {None}
    assert set(LATERALITIES.values()) & said == {LATERALITIES[item.laterality] for item in findings if item.laterality}
    assert {letter for letter, word in OF_DENSITY.items() if word in said} == ({density} - {None})
    assert {word for word in said if word.isdigit()} == (set() if birads is None else {str(birads)})
    assert ("rads" in said) == (birads is not None)
    assert all(birads in categories for word, categories in OF_BIRADS.items() if word in said)


@settings(max_examples=100, deadline=None)
@given(ATTRIBUTES)
def test_the_stored_text_says_the_same_findings(attributes: list[dict[str, str]]) -> None:
    findings = structured_findings(attributes)

    said = words_of(sentences_from_attributes(attributes, density=None, seed=1).findings)

    assert {name for name, words in NAMES.items() if words & said} == {item.finding for item in findings}
    assert set(LATERALITIES.values()) & said == {LATERALITIES[item.laterality] for item in findings if item.laterality}


@settings(max_examples=100, deadline=None)
@given(ATTRIBUTES, st.sampled_from(list(DENSITIES)), st.none() | st.integers(0, 6))
def test_variants_that_follow_each_other_differ(
    attributes: list[dict[str, str]], density: str, birads: int | None
) -> None:
    findings = structured_findings(attributes)
    texts = [phrasing(findings, density, birads, exam="e", variant=variant) for variant in range(NUM_VARIANTS)]

    assert all(one != following for one, following in pairwise(texts))


def test_equal_arguments_give_the_same_text_for_good() -> None:
    findings = [StructuredFinding("mass", True, "spiculated", "L", "upper", "anterior")]

    assert phrasing(findings, "C", 0, exam="e1", variant=3) == (
        "Assessment: BI-RADS 0, additional imaging is recommended. The breasts are heterogeneously dense. "
        "There is a spiculated mass in the upper portion of the left breast at anterior depth."
    )
    assert phrasing([], None, None, exam="e1", variant=3) == ""


def test_there_are_several_frames_for_everything() -> None:
    assert len(PRESENCE) >= 4 and len(ABSENCE) >= 3
    assert set(DENSITY) == set(DENSITIES) and min(map(len, DENSITY.values())) >= 3
    assert set(BIRADS) == set(range(7)) and min(map(len, BIRADS.values())) >= 3


@pytest.mark.parametrize(
    ("denied", "is_told"), [({}, False), ({"laterality": "left"}, False), ({"laterality": "right"}, True)]
)
def test_what_one_row_denies_and_another_has_is_not_denied(denied: dict[str, str], is_told: bool) -> None:
    mass = {"finding": "mass", "value": "positive", "laterality": "left", "depth": "middle"}

    told = structured_findings([mass, {"finding": "mass", "value": "negative"} | denied])

    assert [item.present for item in told] == [True, False][: 1 + is_told]


def test_a_denial_keeps_its_place() -> None:
    item = {"finding": "mass", "value": "negative", "laterality": "right", "subtype": "spiculated"}

    assert sentences_from_attributes([item], density=None, seed=0).findings == (
        "There are no spiculated masses in the right breast."
    )
