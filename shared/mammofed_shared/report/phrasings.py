"""Several ways of saying what a hospital recorded of an exam: the training texts of exams without a report.

``templates.sentences_from_attributes`` is the plain text that is stored; this is what training draws from. All frames
are ours. None holds a word of a finding, subtype, place or assessment that is not its own, so a text says the
patient's own attributes and nothing else: BI-RADS 4 is never called by its lexicon word, which is a subtype too.
"""

import random
from collections.abc import Mapping, Sequence

from mammofed_shared.report.grammar import (
    DENSITIES,
    LATERALITIES,
    StructuredFinding,
    absent_phrase,
    capital,
    noun_phrase,
    place_phrase,
    with_article,
)

NUM_VARIANTS = 8
"""Texts of one exam, numbered, so that their tokens can be cached."""

PRESENCE = (
    "There is {a_noun}{place}.",
    "{A_noun} is seen{place}.",
    "The mammogram shows {a_noun}{place}.",
    "{Noun}{place}.",
    "Noted{place} is {a_noun}.",
    "{A_noun} is identified{place}.",
)
ABSENCE = (
    "There are no {nouns}{place}.",
    "No {nouns} are seen{place}.",
    "The mammogram shows no {nouns}{place}.",
    "{Nouns}{place}: none.",
)
DENSITY: Mapping[str, Sequence[str]] = {
    "A": (
        DENSITIES["A"],
        "The breast tissue is almost entirely fatty.",
        "Breast composition: almost entirely fatty.",
    ),
    "B": (
        DENSITIES["B"],
        "The breasts show scattered areas of fibroglandular density.",
        "Breast composition: scattered fibroglandular densities.",
    ),
    "C": (
        DENSITIES["C"],
        "The breast tissue is heterogeneously dense.",
        "Breast composition: heterogeneously dense.",
    ),
    "D": (
        DENSITIES["D"],
        "The breast tissue is extremely dense.",
        "Breast composition: extremely dense.",
    ),
}
BIRADS: Mapping[int, Sequence[str]] = {
    0: (
        "BI-RADS category 0: incomplete.",
        "The assessment is incomplete and additional imaging is needed (BI-RADS 0).",
        "Assessment: BI-RADS 0, additional imaging is recommended.",
    ),
    1: (
        "BI-RADS category 1: negative.",
        "The examination is negative (BI-RADS 1).",
        "Assessment: BI-RADS 1, nothing to comment on.",
    ),
    2: (
        "BI-RADS category 2: benign.",
        "The examination is benign (BI-RADS 2).",
        "Assessment: BI-RADS 2, benign appearance.",
    ),
    3: (
        "BI-RADS category 3: probably benign.",
        "The examination is probably benign and a short interval follow-up is suggested (BI-RADS 3).",
        "Assessment: BI-RADS 3, short interval follow-up.",
    ),
    4: (
        "BI-RADS category 4: tissue sampling is recommended.",
        "Biopsy should be considered (BI-RADS 4).",
        "Assessment: BI-RADS 4, biopsy is advised.",
    ),
    5: (
        "BI-RADS category 5: highly suggestive of malignancy.",
        "The appearance is highly suggestive of malignancy (BI-RADS 5).",
        "Assessment: BI-RADS 5, appropriate action should be taken.",
    ),
    6: (
        "BI-RADS category 6: known malignancy.",
        "The malignancy is known and proven (BI-RADS 6).",
        "Assessment: BI-RADS 6, proven malignancy.",
    ),
}


def phrasing(
    findings: Sequence[StructuredFinding], density: str | None, birads: int | None, *, exam: str, variant: int
) -> str:
    """One of the exam's texts: every recorded fact in one sentence, in an order of the variant's own; empty for none.

    Variants that follow each other differ in every sentence. Of an exam with one or two facts some variants are equal.

    Args:
        exam: pseudonym; with ``variant`` it decides what is drawn, so equal arguments give equal texts.
        variant: 0 to ``NUM_VARIANTS`` - 1.
    """
    of_exam, of_variant = random.Random(exam), random.Random(f"{exam}/{variant}")

    def turn(frames: Sequence[str]) -> str:
        return frames[(of_exam.randrange(len(frames)) + variant) % len(frames)]

    said = [turn(DENSITY[density])] if density is not None else []
    said += [turn(BIRADS[birads])] if birads is not None else []
    said += [
        _sentence(finding, turn(PRESENCE if finding.present else ABSENCE), of_variant.randrange(3))
        for finding in findings
    ]
    of_variant.shuffle(said)
    return " ".join(said)


def _sentence(finding: StructuredFinding, frame: str, wording: int) -> str:
    place = _place(finding, wording)
    words = {"place": f" {place}" if place else ""}
    if finding.present:
        noun = noun_phrase(finding)
        named = {"a_noun": with_article(noun), "A_noun": capital(with_article(noun)), "Noun": capital(noun)}
    else:
        nouns = absent_phrase(finding)
        named = {"nouns": nouns, "Nouns": capital(nouns)}
    return frame.format(**words, **named)


def _place(finding: StructuredFinding, wording: int) -> str:
    """Where it is, in one of three wordings; parts that are unknown are left out."""
    if wording == 0:
        return place_phrase(finding)
    side = f"{LATERALITIES[finding.laterality]} breast" if finding.laterality else "breast"
    area = f"in the {side}" if finding.laterality else ""
    if finding.position:
        area = f"in the {finding.position} portion of the {side}"
    depth = f"at {finding.depth} depth" if finding.depth else ""
    return " ".join(filter(None, (area, depth) if wording == 1 else (depth, area)))
