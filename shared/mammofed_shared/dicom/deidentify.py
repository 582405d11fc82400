"""The vendor from an allow-list, and the words by which a person is known; no other free text of a header is looked at.

Nothing is removed by a deny-list: a prepared row has the fields of ``preprocess.Prepared`` and no others, and
identifiers become keyed hashes (``pseudonyms``).
"""

from collections.abc import Iterable, Iterator

from mammofed_shared.pseudonyms import words_of

_BEGINNINGS = {
    "HOLOGIC": "hologic",
    "LORAD": "hologic",
    "GE ": "ge",
    "SIEMENS": "siemens",
    "FUJI": "fujifilm",
    "PHILIPS": "philips",
    "SECTRA": "philips",
    "PLANMED": "planmed",
    "IMS": "ims-giotto",
    "GIOTTO": "ims-giotto",
    "AGFA": "agfa",
    "CARESTREAM": "carestream",
    "KODAK": "carestream",
    "KONICA": "konica",
    "CANON": "canon",
}
"""Beginnings of Manufacturer (0008,0070) and the word that stands for them; free text may hold anything."""

VENDORS = (*sorted(set(_BEGINNINGS.values())), "other")
"""Every word that ``vendor_of`` gives."""


def vendor_of(manufacturer: str) -> str:
    """A word of the allow-list, or ``other``."""
    text = manufacturer.upper() + " "
    return next((word for start, word in _BEGINNINGS.items() if text.startswith(start)), "other")


_OF_ANY_HOSPITAL = frozenset(
    words_of(
        "academic and breast cancer center centre clinic clinical college community county department diagnostic for "
        "general health healthcare hospital imaging inc institute mammography medical medicine memorial national "
        "radiology regional saint screening services system the university women womens "
        "anonymous doctor none patient phd test unknown"
    )
)
"""Words of institutions and titles that say nothing of a person; struck from reports, they would take sense away."""
_LEAST_DIGITS = 5
"""Shorter numbers stand in reports as measurements."""


def known_words(identity: Iterable[str]) -> Iterator[str]:
    """Words of names, numbers and addresses in a header by which a person could be recognised in a report."""
    for text in identity:
        for word in words_of(text):
            if word not in _OF_ANY_HOSPITAL and not (word.isdigit() and len(word) < _LEAST_DIGITS):
                yield word
