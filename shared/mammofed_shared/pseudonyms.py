"""Keyed hashes in place of identifiers: of patients, studies, files, and of the words by which a person is known.

The key is the site's own (``site_client/mammofed_site/pseudonym_key.py``). Nothing here can be turned back without it.
"""

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date

_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_LEAST_LETTERS = 3
"""Initials and particles are no identifiers by themselves, and would strike half of a report."""


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Keyed hashes of identifiers: equal for equal input at one site, unlinkable without the site's key."""

    key: bytes = field(repr=False)

    def of(self, kind: str, value: str) -> str:
        """The pseudonym of an identifier, 32 hexadecimal digits; the kind keeps equal numbers of two kinds apart."""
        return self._mac(kind, value).hex()[:32]

    def of_word(self, word: str) -> str:
        """The hash of one word of a name, number or address, as ``words_of`` gives it: 16 hexadecimal digits."""
        return self._mac("word", word).hex()[:16]

    def share(self, patient: str) -> float:
        """A number in [0, 1) that belongs to this patient for good: the split is drawn from it."""
        return int.from_bytes(self._mac("split", patient)[:7], "big") / 2**56

    def shifted_day(self, patient: str, study_date: str) -> int | None:
        """A day count whose zero is secret and the patient's own, so only differences in a patient mean anything.

        Args:
            patient: pseudonym.
            study_date: DICOM DA, ``YYYYMMDD``; anything else gives None.
        """
        try:
            day = date(int(study_date[:4]), int(study_date[4:6]), int(study_date[6:8])).toordinal()
        except ValueError:
            return None
        return day - int.from_bytes(self._mac("day", patient)[:3], "big")

    def _mac(self, kind: str, value: str) -> bytes:
        return hmac.new(self.key, f"{kind}\0{value}".encode(), hashlib.sha256).digest()


def words_of(text: str) -> Iterator[str]:
    """The words of a name, identifier or sentence, without case and accents, in order; shorter than 3 left out."""
    for match in _WORD.finditer(text):
        word = plain_word(match[0])
        if len(word) >= _LEAST_LETTERS:
            yield word


def plain_word(word: str) -> str:
    """One word without case and accents, so that ``MÜLLER``, ``Müller`` and ``muller`` are one."""
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))
