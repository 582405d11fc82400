"""Words that a mammography report uses in their ordinary sense, in lower case.

``scrub.py`` asks it what is no name: many of them are names as well (long, small, white), and in lower case inside a
sentence they mean what they say. A word that is missing here costs little: only words of the patient's own header and
words beside a title are looked at.
"""

from importlib import resources

ORDINARY_WORDS = frozenset(
    (resources.files("mammofed_shared.report") / "vocabulary.txt").read_text(encoding="utf-8").split()
)
"""The words of ``vocabulary.txt``, written by us."""
