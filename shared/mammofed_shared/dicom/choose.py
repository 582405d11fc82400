"""Which sound files are training images: 2-D screening acquisitions meant for presentation (domain: FM Dataset)."""

from mammofed_shared.dicom.header import Header
from mammofed_shared.dicom.reasons import Reason
from mammofed_shared.errors import UnreadableImage

# SOP classes of PS3.4 B.5.
FOR_PROCESSING_CLASS = "1.2.840.10008.5.1.4.1.1.1.2.1"
TOMOSYNTHESIS_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.13.1.3"})
SECONDARY_CAPTURE_CLASSES = ("1.2.840.10008.5.1.4.1.1.7",)

# Image Type (0008,0008) values, PS3.3 C.8.11.7 and what Hologic, GE and Siemens write.
_SYNTHETIC = ("GENERATED_2D", "TOMO_2D", "SYNTHETIC", "SYNTHESIZED", "TOMO_PROJ")
_CONTRAST = (
    "POST_CONTRAST",
    "SUBTRACTION",
    "CONTRAST",
    "RECOMBINED",
    "LOW_ENERGY",
    "HIGH_ENERGY",
    "CEDM",
    "CESM",
)
_SYNTHETIC_NAMES = ("C-VIEW", "S-VIEW", "INTELLIGENT 2D", "V-PREVIEW", "INSIGHT 2D", "SYNTHETIC")


def refuse_other_objects(header: Header, *, has_pixels: bool, takes_secondary_capture: bool) -> None:
    """Raise ``UnreadableImage`` with a skip's reason for what is no 2-D screening acquisition."""
    if not has_pixels and header.rows is None and header.columns is None:
        raise UnreadableImage(Reason.NO_PIXELS)
    if header.modality != "MG":
        raise UnreadableImage(Reason.NOT_MG)
    if header.sop_class.startswith(SECONDARY_CAPTURE_CLASSES) and not takes_secondary_capture:
        raise UnreadableImage(Reason.SECONDARY_CAPTURE)
    if (header.frames or 1) > 1 or header.sop_class in TOMOSYNTHESIS_CLASSES:
        raise UnreadableImage(Reason.MULTI_FRAME, f"{header.frames} frames")
    if header.intent == "FOR PROCESSING" or header.sop_class == FOR_PROCESSING_CLASS:
        raise UnreadableImage(Reason.FOR_PROCESSING)
    if header.quality_control == "YES":
        raise UnreadableImage(Reason.QUALITY_CONTROL)
    if _mentions(header.image_type, _SYNTHETIC) or _mentions((header.series_description.upper(),), _SYNTHETIC_NAMES):
        raise UnreadableImage(Reason.SYNTHETIC_2D)
    if _mentions(header.image_type, _CONTRAST) or header.contrast_agent:
        raise UnreadableImage(Reason.CONTRAST_ENHANCED)
    if header.burned_in == "YES":
        raise UnreadableImage(Reason.BURNED_IN_ANNOTATION)


def refuse_nameless(header: Header) -> None:
    """Raise ``UnreadableImage`` where an identifier is missing, without which nothing can be joined or split."""
    for value, reason in (
        (header.patient, Reason.MISSING_PATIENT_ID),
        (header.study, Reason.MISSING_STUDY_INSTANCE_UID),
        (header.sop_instance, Reason.MISSING_SOP_INSTANCE_UID),
    ):
        if not value:
            raise UnreadableImage(reason)


def kind_of(header: Header) -> str:
    """``screening`` or ``diagnostic`` by the descriptions of study and series; empty where they say neither or both."""
    words = f"{header.study_description} {header.series_description}".upper()
    is_screening, is_diagnostic = "SCREEN" in words, "DIAG" in words
    if is_screening == is_diagnostic:
        return ""
    return "screening" if is_screening else "diagnostic"


def _mentions(texts: tuple[str, ...], words: tuple[str, ...]) -> bool:
    return any(word in text for text in texts for word in words)
