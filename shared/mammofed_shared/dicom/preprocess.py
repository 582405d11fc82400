"""One DICOM file → one training image with its row, or a refusal with its reason. Runs in a worker process.

file → header → profile → choose → decode → grey → orientation → breast → resize → PNG + row
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.dicom.breast import Breast, find_breast
from mammofed_shared.dicom.choose import refuse_nameless, refuse_other_objects
from mammofed_shared.dicom.deidentify import Pseudonyms, vendor_of
from mammofed_shared.dicom.header import Header, read_header
from mammofed_shared.dicom.orientation import (
    Position,
    chest_wall_is_left,
    laterality_of,
    position_of,
    view_of,
)
from mammofed_shared.dicom.profiles import PROFILES
from mammofed_shared.dicom.read import decode
from mammofed_shared.dicom.reasons import Reason
from mammofed_shared.dicom.window import to_grey
from mammofed_shared.errors import UnreadableImage
from mammofed_shared.exam import Laterality

RECIPE_VERSION = 1
"""Raise it with every change here that gives other images or rows: prepared files are then made anew."""

# Half the time of the defaults for 8 % more bytes: one row filter instead of five tried, runs instead of matches.
_PNG_OPTIONS = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
]
_LOSSY = "01"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the files of one data set are prepared."""

    settings: PreprocessingSettings
    profile: str
    key: bytes = field(repr=False)
    prepared: Path


@dataclass(frozen=True, slots=True)
class Prepared:
    """The row of an accepted image: pseudonyms, geometry and words of closed lists; nothing else survives.

    ``shifted_day`` counts from a secret zero of the patient's own (``deidentify``); ``accession`` is a
    pseudonym too, empty where the header has none.
    """

    image: str
    exam: str
    accession: str
    patient: str
    shifted_day: int | None
    laterality: str
    view: str
    path: str
    vendor: str
    spacing_mm: float | None
    crop_top: int
    crop_left: int
    crop_height: int
    crop_width: int
    flipped: bool
    flagged: str
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
    """An image to train on, in 8 bit, as the vendor laid it out; ``is_followed``: the window preset applied."""

    header: Header
    position: Position
    pixels: NDArray[np.uint8]
    is_followed: bool


def grey_image(file: BinaryIO, profile: str, window: str) -> Grey:
    """Read, choose and decode one file.

    Raises:
        UnreadableImage: any reason of ``reasons``.
    """
    header, file = read_header(file)
    rules = PROFILES[profile]
    has_pixels = bool(file.read(1))
    if has_pixels:
        file.seek(-1, 1)
    refuse_other_objects(header, has_pixels=has_pixels, takes_secondary_capture=rules.takes_secondary_capture)
    header = rules.normalise(header)
    view = view_of(header)
    position = position_of(header, laterality_of(header), view)
    refuse_nameless(header)
    codes, shape = decode(header, file)
    pixels, is_followed = to_grey(codes, shape, header, window)
    return Grey(header, position, pixels, is_followed)


def training_image(
    grey: NDArray[np.uint8], breast: Breast, settings: PreprocessingSettings, *, flip: bool, turn: bool
) -> NDArray[np.uint8]:
    """The breast's box, background cleared, resized to the settings' size, mirrored and turned over as told."""
    crop = grey[breast.top : breast.top + breast.height, breast.left : breast.left + breast.width]
    if not settings.keep_background:
        crop = crop * breast.mask
    shrinks = crop.shape[0] >= settings.height and crop.shape[1] >= settings.width
    # INTER_AREA averages only when it shrinks; when it enlarges it repeats pixels.
    method = cv2.INTER_AREA if settings.resize == "area" and shrinks else cv2.INTER_LINEAR
    image = cv2.resize(crop, (settings.width, settings.height), interpolation=method)
    if flip and turn:
        image = cv2.flip(image, -1)
    elif flip or turn:
        image = cv2.flip(image, 1 if flip else 0)
    return np.asarray(image, np.uint8)


def _prepare(recipe: Recipe, file: BinaryIO) -> Prepared:
    settings = recipe.settings
    grey = grey_image(file, recipe.profile, settings.window)
    header, position = grey.header, grey.position
    breast = find_breast(grey.pixels, settings.background_threshold)
    found = chest_wall_is_left(breast.mask)
    flip = not (position.chest_wall_left if found is None else found)
    image = training_image(grey.pixels, breast, settings, flip=flip, turn=position.upside_down)
    encoded = bytes(cv2.imencode(".png", image, _PNG_OPTIONS)[1])
    names = Pseudonyms(recipe.key)
    patient = names.of("patient", header.patient)
    exam = names.of("study", header.study)
    name = names.of("instance", header.sop_instance)
    path = f"images/{patient}/{exam}/{name}.png"
    _write_image(recipe.prepared / path, encoded)
    scale = breast.height / settings.height
    return Prepared(
        image=name,
        exam=exam,
        accession=names.of("accession", header.accession) if header.accession else "",
        patient=patient,
        shifted_day=names.shifted_day(patient, header.study_date),
        laterality=position.laterality.value,
        view=position.view.value,
        path=path,
        vendor=vendor_of(header.manufacturer),
        spacing_mm=None if header.spacing_mm is None else header.spacing_mm * scale,
        crop_top=breast.top,
        crop_left=breast.left,
        crop_height=breast.height,
        crop_width=breast.width,
        flipped=flip,
        flagged=";".join(_flags(grey, found)),
        png_sha256=hashlib.sha256(encoded).hexdigest(),
        png_bytes=len(encoded),
    )


def _flags(grey: Grey, found: bool | None) -> list[Reason]:
    """Suspicions that did not refuse the image, in the order of ``reasons``."""
    header, position = grey.header, grey.position
    expected = {position.chest_wall_left, position.laterality is Laterality.L}
    holds = {
        Reason.FLIPPED_BY_CONTENT: found is not None and expected != {found},
        Reason.CHEST_WALL_UNSURE: found is None,
        Reason.UPSIDE_DOWN: position.upside_down,
        Reason.IMPLANT: header.implant == "YES",
        Reason.NO_WINDOW: not grey.is_followed,
        Reason.LOSSY: header.lossy == _LOSSY,
    }
    return [reason for reason, is_true in holds.items() if is_true]


def _write_image(path: Path, encoded: bytes) -> None:
    """Write by rename and without fsync, which would cost more than the decoding.

    After a power cut a file may be short; the next run compares its size with the journal and makes it anew.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".writing")
    temporary.write_bytes(encoded)
    temporary.replace(path)
