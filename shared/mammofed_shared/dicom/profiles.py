"""Archives with habits of their own: each profile rewrites a header into what the standard would have said."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from mammofed_shared.dicom.header import Header
from mammofed_shared.dicom.reasons import Reason
from mammofed_shared.errors import UnreadableImage


@dataclass(frozen=True, slots=True)
class Profile:
    """How one kind of archive is read."""

    takes_secondary_capture: bool
    """Digitised film is stored as Secondary Capture."""
    normalise: Callable[[Header], Header]
    """Gives the header as the standard would have it; raises ``UnreadableImage`` for objects that do not count."""


def _as_it_is(header: Header) -> Header:
    return header


_CBIS_PATIENT = re.compile(r"^(?:(?:Mass|Calc)-(?:Training|Test)_)?(P_\d+)_(LEFT|RIGHT)_(CC|MLO)(_\d+)?$")


def _cbis_ddsm(header: Header) -> Header:
    """CBIS-DDSM as The Cancer Imaging Archive gives it (Lee et al. 2017).

    The patient's identifier embeds list, side and view (``Mass-Test_P_00820_RIGHT_MLO``), so a split by it
    would put one patient into two parts: it is cut to ``P_00820``. Each image claims a study of its own; a
    patient has one exam there, so the patient is the study. Patient Orientation holds the view. Crops and
    masks carry a running number.
    """
    match = _CBIS_PATIENT.match(header.patient)
    if match is None:
        raise UnreadableImage(Reason.MISSING_PATIENT_ID, "the identifier has not the form of this archive")
    patient, side, view, part = match.groups()
    if part is not None:
        raise UnreadableImage(Reason.VIEW_MODIFIER, "a crop or a mask of this archive")
    said = "\\".join(header.patient_orientation)
    if said and said != view:
        raise UnreadableImage(Reason.CONTRADICTING_TAGS)
    return replace(
        header,
        patient=patient,
        study=patient,
        study_date="",  # the day of the scan to DICOM, not of the exam
        image_laterality=side[0],
        view_position=view,
        patient_orientation=(),
    )


PROFILES = {
    "standard": Profile(takes_secondary_capture=False, normalise=_as_it_is),
    "cbis-ddsm": Profile(takes_secondary_capture=True, normalise=_cbis_ddsm),
}
"""By the name that ``DatasetSettings.profile`` uses."""
