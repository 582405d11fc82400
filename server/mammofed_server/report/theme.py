"""Colours of figures and page, on white paper and on a dark screen; Paul Tol's, told apart by the colour-blind.

No figure depends on them: sites are rows or panels, and what is combined has marks of its own.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Theme:
    """One set of colours."""

    paper: str
    ink: str
    soft: str
    line: str
    site: str
    stratified: str
    pooled: str


LIGHT = Theme("#ffffff", "#1b1f24", "#57606a", "#d9dde2", "#4477aa", "#aa3377", "#88919b")
DARK = Theme("#14171b", "#e6e9ec", "#a3acb5", "#363c43", "#77aadd", "#ee8866", "#7d8791")
