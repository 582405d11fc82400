"""Text from structured attributes: sentences where a hospital has no reports, and reports for phantom exams.

Only the patient's own attributes are said; what is unknown is left out (the authors' released code invents it).
"""

import random
from collections.abc import Callable, Mapping, Sequence

from mammofed_shared.errors import DataError
from mammofed_shared.exam import Report
from mammofed_shared.report.grammar import (
    FINDINGS,
    LATERALITIES,
    StructuredFinding,
    absence_sentence,
    capital,
    density_sentence,
    noun_phrase,
    place_phrase,
    presence_sentence,
)


def sentences_of(findings: Sequence[StructuredFinding]) -> str:
    """One sentence for each recorded finding, present or absent, in the order given; empty for none."""
    return " ".join(
        presence_sentence(finding) if finding.present else absence_sentence(finding) for finding in findings
    )


def sentences_from_attributes(attributes: Sequence[Mapping[str, str]], *, density: str | None, seed: int) -> Report:
    """The findings section of a hospital that records attributes and writes no reports (paper: synthetic reports).

    Only the patient's own attributes are told; what is not recorded is left out. The impression stays empty.

    Args:
        attributes: one mapping a finding, with ``finding`` and ``value`` (positive or negative), and where recorded
            ``subtype``, ``laterality`` (left or right), ``position``, ``depth``.
        density: A–D, or None where unknown.
        seed: orders the sentences, so that no finding always comes first; the same for the same exam.

    Raises:
        DataError: a word that the grammar does not know.
    """
    findings = structured_findings(attributes)
    random.Random(seed).shuffle(findings)
    said = ([density_sentence(density)] if density else []) + [sentences_of(findings)]
    return Report(findings=" ".join(filter(None, said)), impression="")


def structured_findings(attributes: Sequence[Mapping[str, str]]) -> list[StructuredFinding]:
    """The findings that a hospital recorded, in their order.

    What one row denies and another row has is not denied: beside a mass in the left breast, "no masses" is left out
    and "no masses in the right breast" stays.

    Args:
        attributes: as for ``sentences_from_attributes``.

    Raises:
        DataError: a word that the grammar does not know.
    """
    findings = [_structured(item) for item in attributes]
    present = [finding for finding in findings if finding.present]
    return [finding for finding in findings if finding.present or not any(_denies(finding, other) for other in present)]


def _denies(absent: StructuredFinding, present: StructuredFinding) -> bool:
    """Whether the absent one, as widely as it is said, takes in the present one."""
    pairs = [(getattr(absent, name), getattr(present, name)) for name in ("subtype", "laterality", "position", "depth")]
    return absent.finding == present.finding and all(said in (None, other) for said, other in pairs)


def _structured(item: Mapping[str, str]) -> StructuredFinding:
    sides = {word: letter for letter, word in LATERALITIES.items()}
    value, side = item.get("value", ""), item.get("laterality")
    if value not in ("positive", "negative"):
        raise DataError(f"value of a {item['finding']}: expected positive or negative, found {value!r}")
    if side is not None and side not in sides:
        raise DataError(f"laterality of a {item['finding']}: expected left or right, found {side!r}")
    return StructuredFinding(
        finding=item["finding"],
        present=value == "positive",
        subtype=item.get("subtype"),
        laterality=sides[side] if side is not None else None,
        position=item.get("position"),
        depth=item.get("depth"),
    )


def narrative_report(findings: Sequence[StructuredFinding], density: str | None, birads: int | None) -> Report:
    """A report in full sentences, as a dictating radiologist writes it."""
    said = [density_sentence(density)] if density else []
    said.append(sentences_of(findings))
    present = [finding for finding in findings if finding.present]
    if present:
        concluded = [
            " ".join(filter(None, (capital(noun_phrase(finding)), _side_words(finding)))) + "." for finding in present
        ]
        concluded.append("Additional imaging is recommended.")
    else:
        concluded = ["No mammographic evidence of malignancy.", "Routine screening is recommended."]
    if birads is not None:
        concluded.append(f"BI-RADS category {birads}.")
    return Report(findings=" ".join(filter(None, said)), impression=" ".join(concluded))


def itemised_report(findings: Sequence[StructuredFinding], density: str | None, birads: int | None) -> Report:
    """A report as a form: one item a finding, no sentences."""
    items = [f"Composition: {density}."] if density else []
    for finding in findings:
        name = capital(FINDINGS[finding.finding].plural)
        if finding.present:
            side = LATERALITIES[finding.laterality] if finding.laterality else None
            depth = f"{finding.depth} depth" if finding.depth else None
            words = ", ".join(filter(None, (finding.subtype, side, finding.position, depth)))
            items.append(f"{name}: {words or 'present'}.")
        else:
            items.append(f"{name}: none.")
    present = [finding for finding in findings if finding.present]
    concluded = [
        " ".join(filter(None, ("Finding:", noun_phrase(finding), place_phrase(finding)))) + "." for finding in present
    ] or ["Negative study."]
    if birads is not None:
        concluded.append(f"BI-RADS {birads}.")
    return Report(findings=" ".join(items), impression=" ".join(concluded))


HOUSE_STYLES: Mapping[str, Callable[[Sequence[StructuredFinding], str | None, int | None], Report]] = {
    "narrative": narrative_report,
    "itemised": itemised_report,
}
"""Ways of writing a report; each hospital has its own."""


def _side_words(finding: StructuredFinding) -> str:
    return f"in the {LATERALITIES[finding.laterality]} breast" if finding.laterality else ""
