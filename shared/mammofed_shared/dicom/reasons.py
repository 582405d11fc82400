"""The closed list of reason words: why a file is not in the training set, or why an accepted image deserves a look.

Three kinds. A **skip** is a sound file that is no image to train on. An **error** is a file that cannot be
trusted to be what it says. A **flag** stands beside an accepted image. docs/data.md prints this list for
users.
"""

from enum import Enum, StrEnum


class Kind(Enum):
    """What follows from a reason."""

    SKIP = "skip"
    ERROR = "error"
    FLAG = "flag"


class Reason(StrEnum):
    """One word, as it stands in the tables; ``kind`` says what follows from it, ``sentence`` what it means."""

    kind: Kind
    sentence: str

    def __new__(cls, word: str, kind: Kind, sentence: str) -> "Reason":
        member = str.__new__(cls, word)
        member._value_ = word
        member.kind = kind
        member.sentence = sentence
        return member

    # Sound files that are no training image.
    NO_PIXELS = "no_pixels", Kind.SKIP, "the object holds no image (report, presentation state, key object)"
    NOT_MG = "not_mg", Kind.SKIP, "the modality is not mammography"
    SECONDARY_CAPTURE = "secondary_capture", Kind.SKIP, "a screenshot or a scan, not an acquisition"
    MULTI_FRAME = "multi_frame", Kind.SKIP, "tomosynthesis or another multi-frame object"
    FOR_PROCESSING = "for_processing", Kind.SKIP, "raw detector data, not meant for presentation"
    SYNTHETIC_2D = "synthetic_2d", Kind.SKIP, "a 2-D image computed from tomosynthesis"
    CONTRAST_ENHANCED = "contrast_enhanced", Kind.SKIP, "contrast-enhanced mammography"
    QUALITY_CONTROL = "quality_control", Kind.SKIP, "a quality-control image"
    BURNED_IN_ANNOTATION = "burned_in_annotation", Kind.SKIP, "text is burned into the pixels"
    VIEW_MODIFIER = (
        "view_modifier",
        Kind.SKIP,
        "spot, magnified, implant-displaced or otherwise modified view",
    )
    NON_STANDARD_VIEW = "non_standard_view", Kind.SKIP, "a view other than CC and MLO"
    MISSING_VIEW = "missing_view", Kind.SKIP, "no attribute says the view"
    MISSING_LATERALITY = "missing_laterality", Kind.SKIP, "no attribute says the side"
    NOT_OF_PROFILE = "not_of_profile", Kind.SKIP, "an attribute has not the form that the import profile expects"
    CONTRADICTING_TAGS = "contradicting_tags", Kind.SKIP, "attributes contradict each other on side or view"
    ROTATED = "rotated", Kind.SKIP, "the image is rotated by 90 degrees"
    DIAGNOSTIC_EXAM = "diagnostic_exam", Kind.SKIP, "the exam is known to be diagnostic, not screening"
    BIRADS_OUTSIDE = "birads_outside", Kind.SKIP, "the exam's BI-RADS category is not one that was chosen"
    INCOMPLETE_EXAM = (
        "incomplete_exam",
        Kind.SKIP,
        "not all four views of the exam are there, and complete exams were asked for",
    )
    DUPLICATE = "duplicate", Kind.SKIP, "the same image was already taken from another file"
    DUPLICATE_CONFLICT = "duplicate_conflict", Kind.SKIP, "files share an instance UID but not their pixels"

    # Files that cannot be trusted.
    UNREADABLE_FILE = "unreadable_file", Kind.ERROR, "the operating system cannot read the file"
    EMPTY_FILE = "empty_file", Kind.ERROR, "the file has no bytes"
    NOT_DICOM = "not_dicom", Kind.ERROR, "the file is not DICOM"
    BAD_HEADER = "bad_header", Kind.ERROR, "the header cannot be parsed"
    UNSUPPORTED_TRANSFER_SYNTAX = (
        "unsupported_transfer_syntax",
        Kind.ERROR,
        "no decoder is at hand for the file's transfer syntax",
    )
    MISSING_PATIENT_ID = "missing_PatientID", Kind.ERROR, "no patient identifier, so no split by patient"
    MISSING_STUDY_INSTANCE_UID = "missing_StudyInstanceUID", Kind.ERROR, "no study identifier"
    MISSING_SOP_INSTANCE_UID = "missing_SOPInstanceUID", Kind.ERROR, "no instance identifier"
    MISSING_ROWS = "missing_Rows", Kind.ERROR, "the header does not say the number of rows"
    MISSING_COLUMNS = "missing_Columns", Kind.ERROR, "the header does not say the number of columns"
    MISSING_BITS_ALLOCATED = (
        "missing_BitsAllocated",
        Kind.ERROR,
        "the header does not say the bits of a pixel",
    )
    MISSING_BITS_STORED = "missing_BitsStored", Kind.ERROR, "the header does not say the used bits of a pixel"
    MISSING_PIXEL_REPRESENTATION = (
        "missing_PixelRepresentation",
        Kind.ERROR,
        "the header does not say whether pixels are signed",
    )
    MISSING_PHOTOMETRIC_INTERPRETATION = (
        "missing_PhotometricInterpretation",
        Kind.ERROR,
        "the header does not say whether bright means dense",
    )
    MISSING_PIXEL_DATA = (
        "missing_PixelData",
        Kind.ERROR,
        "the header describes an image, but its pixels are missing",
    )
    NOT_GREYSCALE = "not_greyscale", Kind.ERROR, "a colour image"
    BAD_BITS = "bad_bits", Kind.ERROR, "bits allocated, bits stored and high bit do not fit each other"
    SIZE_MISMATCH = "size_mismatch", Kind.ERROR, "header and pixel data disagree on the size of the image"
    TRUNCATED = "truncated", Kind.ERROR, "the file ends before its pixel data does"
    CORRUPT_CODESTREAM = (
        "corrupt_codestream",
        Kind.ERROR,
        "the compressed pixel data is damaged or of another kind",
    )
    BLANK_IMAGE = "blank_image", Kind.ERROR, "the image is constant or shows no breast"
    DECODER_DIED = "decoder_died", Kind.ERROR, "decoding killed its process"
    DECODER_HUNG = "decoder_hung", Kind.ERROR, "decoding did not end in time"
    INTERNAL_ERROR = "internal_error", Kind.ERROR, "an error of mammofed: please report it with the detail"

    # Beside accepted images.
    FLIPPED_BY_CONTENT = (
        "flipped_by_content",
        Kind.FLAG,
        "the chest wall lies on another side than the tags say",
    )
    CHEST_WALL_UNSURE = (
        "chest_wall_unsure",
        Kind.FLAG,
        "the pixels do not tell the chest wall; the tags were followed",
    )
    INVERTED_CONTRAST = (
        "inverted_contrast",
        Kind.FLAG,
        "the background was bright although the tags say dark; the grey scale was turned over",
    )
    TEXT_IN_IMAGE = (
        "text_in_image",
        Kind.FLAG,
        "letters stand beside the breast; cleared with the background unless it is kept",
    )
    SHARED_PIXELS = (
        "shared_pixels",
        Kind.FLAG,
        "the same pixels stand under another patient too; not used outside training",
    )
    UPSIDE_DOWN = "upside_down", Kind.FLAG, "turned over vertically, as the patient orientation says"
    IMPLANT = "implant", Kind.FLAG, "a breast implant is present"
    NO_WINDOW = "no_window", Kind.FLAG, "no usable window for the preset `voi`; minimum to maximum was taken"
    LOSSY = "lossy", Kind.FLAG, "the pixels were compressed with loss"


BY_WORD = {reason.value: reason for reason in Reason}
"""A table's word → its reason."""
