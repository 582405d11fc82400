"""Side, view and the way up of a mammogram: from all attributes where vendors put them, then from the pixels.

Stored images have the chest wall left and the head (MLO) or the outer side (CC) up, whatever the vendor
wrote.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.dicom.header import Header
from mammofed_shared.dicom.reasons import Reason
from mammofed_shared.errors import UnreadableImage
from mammofed_shared.exam import Laterality, View

# Context group CID 4014 "View for Mammography" (PS3.16), with the retired SNOMED-RT codes that archives hold.
_VIEW_CODES = {
    "399162004": View.CC,
    "R-10242": View.CC,
    "399368009": View.MLO,
    "R-10226": View.MLO,
}
_STRIP = 0.15
"""Share of the breast's width that is looked at on either side to find the chest wall."""
_SURE = 1.25
"""The chest wall's strip must hold so many times the breast of the other one."""


@dataclass(frozen=True, slots=True)
class Position:
    """What the attributes say."""

    laterality: Laterality
    view: View
    chest_wall_left: bool
    upside_down: bool


def laterality_of(header: Header) -> tuple[Laterality, str]:
    """Side of the breast, and which attribute said it first.

    ``image``: Image Laterality (0020,0062); ``series``: Laterality (0020,0060); ``frame``: Frame Laterality
    (0020,9072).

    Raises:
        UnreadableImage: none says it, or they contradict each other.
    """
    said = [("image", header.image_laterality), ("series", header.laterality)]
    said += [("frame", side) for side in header.frame_lateralities]
    said = [(where, side) for where, side in said if side in ("L", "R")]
    return Laterality(_only({side for _, side in said}, Reason.MISSING_LATERALITY)), said[0][0]


def view_of(header: Header) -> tuple[View, str]:
    """View, and which attribute said it first; a modified view is refused.

    ``view_position``: View Position (0018,5101); ``view_code``: View Code Sequence (0054,0220).

    Raises:
        UnreadableImage: none says it, they contradict each other, or it is another view than CC and MLO.
    """
    if any(code.num_modifiers for code in header.view_codes):
        raise UnreadableImage(Reason.VIEW_MODIFIER)
    said = {_VIEW_CODES.get(code.code, "other") for code in header.view_codes if code.code}
    if header.view_position:
        said.add(header.view_position if header.view_position in ("CC", "MLO") else "other")
    if said == {"other"}:
        raise UnreadableImage(Reason.NON_STANDARD_VIEW)
    view = View(_only(said, Reason.MISSING_VIEW))
    return view, "view_position" if header.view_position else "view_code"


def position_of(header: Header, laterality: Laterality, view: View) -> Position:
    """Where the chest wall and the top should be by Patient Orientation (0020,0020), PS3.3 C.7.6.1.1.1.

    Its first value is the direction of the rows: towards anterior (A) means the chest wall is left. Where it
    is missing, left breasts are expected with the chest wall left, as they are hung.

    Raises:
        UnreadableImage: the rows run along the body, so the image is rotated by 90 degrees.
    """
    rows, columns = (*header.patient_orientation, "", "")[:2]
    if rows and rows[0] in "HF" and columns[:1] in ("A", "P"):
        raise UnreadableImage(Reason.ROTATED)
    chest_wall_left = rows[0] == "A" if rows[:1] in ("A", "P") else laterality is Laterality.L
    upside_down = "H" in columns if view is View.MLO else columns == laterality.value
    return Position(laterality, view, chest_wall_left, upside_down)


def chest_wall_is_left(breast: NDArray[np.bool_] | NDArray[np.uint8]) -> bool | None:
    """Whether the breast rests on the left side of its box, where it is tallest; None where both sides are alike.

    Args:
        breast: (height, width) of the breast's box, true or 1 inside the breast.
    """
    width = max(1, round(breast.shape[1] * _STRIP))
    left, right = int(breast[:, :width].sum()), int(breast[:, -width:].sum())
    if left > _SURE * right:
        return True
    if right > _SURE * left:
        return False
    return None


def _only(said: Iterable[str], missing: Reason) -> str:
    values = list(said)
    if not values:
        raise UnreadableImage(missing)
    if len(values) > 1:
        raise UnreadableImage(Reason.CONTRADICTING_TAGS)
    return values[0]
