"""The patient's age at the exam, as one of a few bands; neither the age nor the date of birth goes any further."""

import re
from datetime import date

from mammofed_shared.dicom.header import Header
from mammofed_shared.exam import AGE_BANDS

_YEARS = re.compile(r"(\d{3})Y")
"""Age String (PS3.5 6.2); ages in days, weeks or months are not those of a woman who is screened."""
_LEAST, _MOST = 18, 110
"""Archives write `000Y` or a birth date of 1900 for an age that they do not know."""


def age_band_of(header: Header) -> str | None:
    """The band of Patient's Age (0010,1010), else of the years from Birth Date (0010,0030) to Study Date (0008,0020).

    None where neither gives the age of an adult.
    """
    stated = _YEARS.fullmatch(header.age)
    for age in (int(stated[1]) if stated else None, _full_years(header.birth_date, header.study_date)):
        if age is not None and _LEAST <= age <= _MOST:
            return AGE_BANDS[min(max(age // 10 - 3, 0), len(AGE_BANDS) - 1)]
    return None


def _full_years(start: str, end: str) -> int | None:
    """Birthdays between two DICOM dates (``YYYYMMDD``)."""
    try:
        born, then = (date(int(day[:4]), int(day[4:6]), int(day[6:8])) for day in (start, end))
    except ValueError:
        return None
    return then.year - born.year - ((then.month, then.day) < (born.month, born.day))
