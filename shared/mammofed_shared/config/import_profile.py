"""Configuration of an import profile: what an archive does otherwise than the DICOM standard, written down once.

Shipped ones are in ``x`; docs/data.md teaches how to write another.
"""

import re
from typing import Literal

from pydantic import Field, model_validator

from mammofed_shared.config.base import Settings

Attribute = Literal[
    "patient",
    "study",
    "accession",
    "series_description",
    "study_description",
    "manufacturer",
    "image_laterality",
    "laterality",
    "view_position",
    "patient_orientation",
]
"""Attributes that a profile may look at; several values of one are joined by a backslash."""

TARGETS = ("patient", "study", "accession", "laterality", "view")
"""What a pattern may take out of an attribute, as named groups."""


class PatternSettings(Settings):
    """Takes parts out of one attribute by a regular expression, which must match all of it."""

    attribute: Attribute
    matches: str
    r"""Regular expression with named groups among patient, study, accession, laterality, view, e.g.
    `(?P<view>CC|MLO)`."""
    otherwise: Literal["refuse", "ignore"] = "refuse"
    """What follows when it does not match: the file is refused as `not_of_profile`, or the pattern says nothing."""

    @model_validator(mode="after")
    def _groups_are_known(self) -> "PatternSettings":
        groups = _compiled(self.matches).groupindex
        unknown = sorted(set(groups) - set(TARGETS))
        if unknown or not groups:
            raise ValueError(f"matches: expected named groups among {', '.join(TARGETS)}, found {unknown or 'none'}")
        return self


class RefusalSettings(Settings):
    """Refuses files of which one attribute matches."""

    attribute: Attribute
    matches: str
    """Regular expression that is searched in the attribute."""
    reason: Literal["view_modifier", "non_standard_view", "secondary_capture", "synthetic_2d", "quality_control"]

    @model_validator(mode="after")
    def _compiles(self) -> "RefusalSettings":
        _compiled(self.matches)
        return self


class ImportProfile(Settings):
    """How one kind of archive is read. Without any key it is the standard."""

    secondary_capture: bool = False
    """Take images that are stored as Secondary Capture, as digitised film is."""
    refuse: tuple[RefusalSettings, ...] = ()
    """Files to refuse, before anything else is looked at."""
    patterns: tuple[PatternSettings, ...] = ()
    """Where identifiers, side and view really stand. Two patterns that say different things contradict each other."""
    words: dict[str, str] = Field(default_factory=dict)
    """What a word that a pattern takes out means: `LEFT: L`."""
    study: Literal["study", "patient", "accession"] = "study"
    """What makes images one exam, where the study UID does not."""
    ignore: tuple[Attribute | Literal["study_date"], ...] = ()
    """Attributes that hold something else in this archive, and are not read any further."""


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"matches: no regular expression: {error}") from error
