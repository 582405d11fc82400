"""One DICOM file → one training image with its row, or a refusal with its reason. Runs in a worker process.

file → header → choose → profile → decode → grey → contrast → breast → orientation → resize → PNG + row
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from mammofed_shared.config.import_profile import ImportProfile
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.dicom.age import age_band_of
from mammofed_shared.dicom.breast import Breast, find_breast
from mammofed_shared.dicom.choose import kind_of, refuse_nameless, refuse_other_objects
from mammofed_shared.dicom.deidentify import known_words, vendor_of
from mammofed_shared.dicom.header import Header, read_header
from mammofed_shared.dicom.orientation import (
    Position,
    chest_wall_is_left,
    laterality_of,
    position_of,
    view_of,
)
from mammofed_shared.dicom.png import encode_png
from mammofed_shared.dicom.profiles import normalised
from mammofed_shared.dicom.read import decode
from mammofed_shared.dicom.reasons import Reason
from mammofed_shared.dicom.resize import resized
from mammofed_shared.dicom.suspicion import is_inverted, shows_text
from mammofed_shared.dicom.window import GreyImage, show
from mammofed_shared.errors import UnreadableImage
from mammofed_shared.exam import Laterality
from mammofed_shared.pseudonyms import Pseudonyms

RECIPE_VERSION = 3
"""Raise it with every change here that gives other images or rows: prepared files are then made anew."""

_LOSSY = "01"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the files of one data set are prepared."""

    settings: PreprocessingSettings
    profile: ImportProfile
    key: bytes = field(repr=False)
    prepared: Path
    is_dry: bool = False
    """Do everything but write the image."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An accepted image: pseudonyms, geometry and words of closed lists; nothing else of the file survives.

    What stands in images.parquet too is described there (``data/columns.py``). The rest stays in the intake's journal:
    ``accession`` is a pseudonym, empty where the header has none; ``shifted_day`` counts from a secret zero of the
    patient's own; ``age_band`` is one of ``exam.AGE_BANDS`` or None, and the exam's where its images agree; ``kind`` is
    screening, diagnostic or empty; ``known`` holds keyed hashes of the words of names and numbers in the header, by
    which they are found in a report.
    """

    image: str
    exam: str
    accession: str
    patient: str
    shifted_day: int | None
    age_band: str | None
    kind: str
    laterality: str
    laterality_from: str
    view: str
    view_from: str
    path: str
    vendor: str
    intent: str
    window: str
    rows: int
    columns: int
    spacing_rows_mm: float | None
    spacing_columns_mm: float | None
    crop_top: int
    crop_left: int
    crop_height: int
    crop_width: int
    flipped: bool
    turned: bool
    inverted: bool
    flagged: str
    grey: tuple[int, ...]
    known: tuple[str, ...]
    png_sha256: str
    png_bytes: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a file is not in the set; ``detail`` holds numbers and our own words only, never a value of the header."""

    reason: str
    detail: str


def prepare_file(recipe: Recipe, path: Path) -> Prepared | Refusal:
    """Prepare one file and write its PNG below ``recipe.prepared``, whole or not at all."""
    cv2.setNumThreads(1)  # the workers are the parallelism; their threads would fight over the cores
    try:
        if path.stat().st_size == 0:
            raise UnreadableImage(Reason.EMPTY_FILE)
        with path.open("rb") as file:
            return _prepare(recipe, file)
    except UnreadableImage as refused:
        return Refusal(str(refused.reason), str(refused).partition(": ")[2])
    except OSError as error:
        return Refusal(Reason.UNREADABLE_FILE, type(error).__name__)


@dataclass(frozen=True, slots=True)
class Grey:
    """An image to train on, in 8 bit, as the vendor laid it out.

    ``is_turned_over``: the tags were wrong about which end of the grey scale is dense.
    """

    header: Header
    position: Position
    said_by: tuple[str, str]
    pixels: GreyImage
    is_turned_over: bool


def grey_image(file: BinaryIO, profile: ImportProfile, window: str) -> Grey:
    """Read, choose and decode one file.

    Raises:
        UnreadableImage: any reason of ``reasons``.
    """
    header, file = read_header(file)
    has_pixels = bool(file.read(1))
    if has_pixels:
        file.seek(-1, 1)
    refuse_other_objects(header, has_pixels=has_pixels, takes_secondary_capture=profile.secondary_capture)
    header, by_profile = normalised(header, profile)
    view, view_from = view_of(header)
    laterality, laterality_from = laterality_of(header)
    position = position_of(header, laterality, view)
    refuse_nameless(header)
    codes, shape = decode(header, file)
    pixels = show(codes, shape, header, window)
    is_turned_over = is_inverted(pixels)
    if is_turned_over:
        pixels = pixels.turned_over()
    said_by = (
        "profile" if "laterality" in by_profile else laterality_from,
        "profile" if "view" in by_profile else view_from,
    )
    return Grey(header, position, said_by, pixels, is_turned_over)


def training_image(
    grey: GreyImage, breast: Breast, settings: PreprocessingSettings, *, flip: bool, turn: bool
) -> NDArray[np.uint8]:
    """The breast's box at the settings' size, background cleared, mirrored and turned over as told."""
    box = slice(breast.top, breast.top + breast.height), slice(breast.left, breast.left + breast.width)
    image = resized(grey, box, settings.height, settings.width, area=settings.resize == "area")
    if not settings.keep_background:
        image &= breast.resized(settings.height, settings.width)
    if not flip and not turn:
        return image
    return np.asarray(cv2.flip(image, -1 if flip and turn else 1 if flip else 0), np.uint8)


def _prepare(recipe: Recipe, file: BinaryIO) -> Prepared:
    settings = recipe.settings
    grey = grey_image(file, recipe.profile, settings.window)
    header, position = grey.header, grey.position
    breast = find_breast(grey.pixels, settings.background_threshold)
    found = chest_wall_is_left(breast.silhouette)
    flip = not (position.chest_wall_left if found is None else found)
    image = training_image(grey.pixels, breast, settings, flip=flip, turn=position.upside_down)
    encoded = encode_png(image)
    names = Pseudonyms(recipe.key)
    patient = names.of("patient", header.patient)
    exam = names.of("study", header.study)
    name = names.of("instance", header.sop_instance)
    path = f"images/{patient}/{exam}/{name}.png"
    if not recipe.is_dry:
        _write_image(recipe.prepared / path, encoded)
    rows_mm, columns_mm = header.spacing_mm or (None, None)
    return Prepared(
        image=name,
        exam=exam,
        accession=names.of("accession", header.accession) if header.accession else "",
        patient=patient,
        shifted_day=names.shifted_day(patient, header.study_date),
        age_band=age_band_of(header),
        kind=kind_of(header),
        laterality=position.laterality.value,
        laterality_from=grey.said_by[0],
        view=position.view.value,
        view_from=grey.said_by[1],
        path=path,
        vendor=vendor_of(header.manufacturer),
        intent="presentation" if header.intent == "FOR PRESENTATION" else "unsaid",
        window=settings.window if grey.pixels.is_followed else "paper",
        rows=grey.pixels.shape[0],
        columns=grey.pixels.shape[1],
        spacing_rows_mm=None if rows_mm is None else rows_mm * breast.height / settings.height,
        spacing_columns_mm=None if columns_mm is None else columns_mm * breast.width / settings.width,
        crop_top=breast.top,
        crop_left=breast.left,
        crop_height=breast.height,
        crop_width=breast.width,
        flipped=flip,
        turned=position.upside_down,
        inverted=(header.photometric == "MONOCHROME1") != grey.is_turned_over,
        flagged=";".join(_flags(grey, breast, found)),
        grey=_histogram(image),
        known=tuple(sorted({names.of_word(word) for word in known_words(header.identity)})),
        png_sha256=hashlib.sha256(encoded).hexdigest(),
        png_bytes=len(encoded),
    )


def _flags(grey: Grey, breast: Breast, found: bool | None) -> list[Reason]:
    """Suspicions that did not refuse the image, in the order of ``reasons``."""
    header, position = grey.header, grey.position
    expected = {position.chest_wall_left, position.laterality is Laterality.L}
    holds = {
        Reason.FLIPPED_BY_CONTENT: found is not None and expected != {found},
        Reason.CHEST_WALL_UNSURE: found is None,
        Reason.INVERTED_CONTRAST: grey.is_turned_over,
        Reason.TEXT_IN_IMAGE: shows_text(grey.pixels, breast),
        Reason.UPSIDE_DOWN: position.upside_down,
        Reason.IMPLANT: header.implant == "YES",
        Reason.NO_WINDOW: not grey.pixels.is_followed,
        Reason.LOSSY: header.lossy == _LOSSY,
    }
    return [reason for reason, is_true in holds.items() if is_true]


def _histogram(image: NDArray[np.uint8]) -> tuple[int, ...]:
    """How many pixels above 0 fall into each of 16 equal bins of 0 to 255."""
    counts = np.asarray(cv2.calcHist([image], [0], None, [256], [0, 256]), np.int64).ravel()
    counts[0] = 0
    return tuple(int(count) for count in counts.reshape(16, 16).sum(1))


def _write_image(path: Path, encoded: bytes) -> None:
    """Write by rename and without fsync, which would cost more than the decoding.

    After a power cut a file may be short; the next run compares its size with the journal and makes it anew.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".writing")
    temporary.write_bytes(encoded)
    temporary.replace(path)
