"""The words in which mammographic findings are told: one grammar for reports, sentences and prompts.

Written by us after the BI-RADS lexicon's vocabulary (finding × subtype × position × depth × laterality).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mammofed_shared.errors import DataError


@dataclass(frozen=True, slots=True)
class Noun:
    """How one finding is named: alone, as a plural, and with which subtypes."""

    singular: str
    plural: str
    subtypes: tuple[str, ...]


FINDINGS: Mapping[str, Noun] = {
    "mass": Noun("mass", "masses", ("spiculated", "circumscribed", "obscured", "suspicious")),
    "calcification": Noun("cluster of calcifications", "calcifications", ("pleomorphic", "amorphous", "suspicious")),
    "asymmetry": Noun("asymmetry", "asymmetries", ("focal", "global", "developing")),
    "architectural_distortion": Noun("architectural distortion", "architectural distortions", ("suspicious",)),
}
LATERALITIES: Mapping[str, str] = {"L": "left", "R": "right"}
POSITIONS = ("upper", "lower", "inner", "outer", "central")
DEPTHS = ("anterior", "middle", "posterior")
DENSITIES: Mapping[str, str] = {
    "A": "The breasts are almost entirely fatty.",
    "B": "There are scattered areas of fibroglandular density.",
    "C": "The breasts are heterogeneously dense.",
    "D": "The breasts are extremely dense.",
}
"""Breast composition a–d of the BI-RADS atlas."""


@dataclass(frozen=True, slots=True)
class StructuredFinding:
    """What a hospital recorded of one finding; None where it recorded nothing.

    Raises:
        DataError: a word that the grammar does not know.
    """

    finding: str
    present: bool
    subtype: str | None = None
    laterality: str | None = None
    position: str | None = None
    depth: str | None = None

    def __post_init__(self) -> None:
        if self.finding not in FINDINGS:
            raise DataError(f"finding: expected one of {', '.join(FINDINGS)}, found {self.finding!r}")
        known: tuple[tuple[str, str | None, tuple[str, ...]], ...] = (
            ("subtype", self.subtype, FINDINGS[self.finding].subtypes),
            ("laterality", self.laterality, tuple(LATERALITIES)),
            ("position", self.position, POSITIONS),
            ("depth", self.depth, DEPTHS),
        )
        for name, value, allowed in known:
            if value is not None and value not in allowed:
                raise DataError(f"{name} of a {self.finding}: expected one of {', '.join(allowed)}, found {value!r}")


def with_article(words: str) -> str:
    """The words with ``a`` or ``an`` before them."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def capital(words: str) -> str:
    """The words with a capital at the beginning."""
    return words[0].upper() + words[1:]


def noun_phrase(finding: StructuredFinding) -> str:
    """Finding with its subtype: ``spiculated mass``."""
    return " ".join(filter(None, (finding.subtype, FINDINGS[finding.finding].singular)))


def absent_phrase(finding: StructuredFinding) -> str:
    """What is absent, as a plural with its subtype: ``spiculated masses``."""
    return " ".join(filter(None, (finding.subtype, FINDINGS[finding.finding].plural)))


def place_phrase(finding: StructuredFinding) -> str:
    """Where it is: ``in the upper left breast at anterior depth``; parts that are unknown are left out."""
    side = LATERALITIES[finding.laterality] if finding.laterality else None
    parts: list[str] = []
    if finding.position or side:
        parts.append(" ".join(filter(None, ("in the", finding.position, side, "breast"))))
    if finding.depth:
        parts.append(f"at {finding.depth} depth")
    return " ".join(parts)


def presence_sentence(finding: StructuredFinding) -> str:
    """``There is a spiculated mass in the upper left breast at anterior depth.``"""
    return " ".join(filter(None, ("There is", with_article(noun_phrase(finding)), place_phrase(finding)))) + "."


def absence_sentence(finding: StructuredFinding) -> str:
    """``There are no masses in the left breast.``; what was looked for in one place is not denied of others."""
    return " ".join(filter(None, ("There are no", absent_phrase(finding), place_phrase(finding)))) + "."


def density_sentence(density: str) -> str:
    """The sentence of a breast density.

    Raises:
        DataError: not one of A–D.
    """
    if density not in DENSITIES:
        raise DataError(f"density: expected one of {', '.join(DENSITIES)}, found {density!r}")
    return DENSITIES[density]
