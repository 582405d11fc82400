"""What survives of a header: pseudonyms under the site's key, a vendor from an allow-list, days instead of dates.

Nothing is removed by a deny-list: a prepared row has the fields of ``preprocess.Prepared`` and no others.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import date

_VENDORS = {
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


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Keyed hashes of identifiers: equal for equal input at one site, unlinkable without the site's key."""

    key: bytes = field(repr=False)

    def of(self, kind: str, value: str) -> str:
        """The pseudonym of an identifier, 32 hexadecimal digits; the kind keeps equal numbers of two kinds apart."""
        return self._mac(kind, value).hex()[:32]

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


def vendor_of(manufacturer: str) -> str:
    """A word of the allow-list, or ``other``."""
    text = manufacturer.upper() + " "
    return next((word for start, word in _VENDORS.items() if text.startswith(start)), "other")
