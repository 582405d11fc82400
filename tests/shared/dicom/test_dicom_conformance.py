"""Pixels in every way that vendors and archives write them: decoded to exactly the stored values, and shown right.

The kinds are those of the project's acceptance corpus; the files are made here.
"""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dicom_answers import row_of
from dicom_encodings import (
    EXPLICIT_BE,
    EXPLICIT_LE,
    HTJ2K,
    HTJ2K_LOSSLESS,
    J2K,
    J2K_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    JPEG_LS_NEAR,
    LOSSLESS,
    NATIVE,
    Element,
    codestream,
    dicom_file,
    elements_of,
    file_of,
    lookup_table,
    stored_ramp,
)
from mammofed_shared.dicom.header import read_header
from mammofed_shared.dicom.read import decode, stored_values

ENCAPSULATED = tuple(syntax for syntax in LOSSLESS if syntax not in NATIVE)


def values_of(file: bytes) -> NDArray[np.int32]:
    header, opened = read_header(io.BytesIO(file))
    return stored_values(*decode(header, opened))


# ── pixels ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_every_lossless_syntax_gives_the_stored_values(syntax: str, bits: int, signed: bool) -> None:
    values = stored_ramp(bits, signed=signed, rows=47, columns=39)
    assert (values.min() < 0, len(np.unique(values)) > 100) == (signed, True)
    np.testing.assert_array_equal(values_of(dicom_file(values, syntax, bits)), values)


@pytest.mark.parametrize("predictor", range(1, 8))
def test_every_predictor_of_lossless_jpeg_gives_the_stored_values(predictor: int) -> None:
    file = dicom_file(syntax=JPEG_LOSSLESS, predictor=predictor)
    np.testing.assert_array_equal(values_of(file), stored_ramp(12))


@pytest.mark.parametrize(
    ("fragments", "offsets"), [(1, "basic"), (1, "none"), (1, "extended"), (5, "basic"), (5, "none")]
)
@pytest.mark.parametrize("syntax", ENCAPSULATED)
def test_fragments_are_joined_whatever_table_stands_before_them(syntax: str, fragments: int, offsets: str) -> None:
    file = dicom_file(syntax=syntax, fragments=fragments, offsets=offsets)
    np.testing.assert_array_equal(values_of(file), stored_ramp(12))


@pytest.mark.parametrize(
    ("syntax", "bits", "most"),
    [(JPEG_BASELINE, 8, 6), (JPEG_EXTENDED, 12, 12), (JPEG_LS_NEAR, 12, 3), (J2K, 12, 40), (HTJ2K, 12, 12)],
)
def test_lossy_syntaxes_stay_near_and_never_wrap_around(syntax: str, bits: int, most: int) -> None:
    off = np.abs(values_of(dicom_file(syntax=syntax, bits=bits)) - stored_ramp(bits))
    assert 0 < off.max() <= most


@pytest.mark.parametrize("stored", [8, 12])
@pytest.mark.parametrize("syntax", [JPEG_LOSSLESS_SV1, JPEG_LS, J2K_LOSSLESS, HTJ2K_LOSSLESS])
def test_a_stream_of_eight_bits_may_stand_in_an_image_of_sixteen(syntax: str, stored: int) -> None:
    values = stored_ramp(8)
    stream = codestream(values.astype(np.uint8), syntax, 8)
    file = dicom_file(values, syntax, 12, stream=stream, BitsStored=stored, HighBit=stored - 1)
    np.testing.assert_array_equal(values_of(file), values)


@pytest.mark.parametrize("syntax", [JPEG_LOSSLESS_SV1, JPEG_LS, J2K_LOSSLESS, HTJ2K_LOSSLESS])
def test_a_stream_may_say_more_bits_than_the_header(syntax: str) -> None:
    stream = codestream(stored_ramp(12).astype(np.uint16), syntax, 16)
    np.testing.assert_array_equal(values_of(dicom_file(syntax=syntax, stream=stream)), stored_ramp(12))


def test_negative_values_need_no_bits_above_the_stored_ones() -> None:
    values = stored_ramp(12, signed=True)
    extended = values.astype("<i2").tobytes()
    assert extended != (values & 4095).astype("<u2").tobytes()
    for pixels in (extended, (values & 4095).astype("<u2").tobytes()):
        np.testing.assert_array_equal(values_of(dicom_file(values, PixelData=pixels)), values)


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, EXPLICIT_BE])
def test_an_overlay_in_the_unused_bits_is_cleared(syntax: str) -> None:
    overlaid = (stored_ramp(12) | 0x4000).astype(">u2" if syntax == EXPLICIT_BE else "<u2").tobytes()
    np.testing.assert_array_equal(values_of(dicom_file(syntax=syntax, PixelData=overlaid)), stored_ramp(12))


# ── what the values mean ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({}, "no_window"),
        ({"WindowCenter": 2048, "WindowWidth": 4096}, ""),
        ({"WindowCenter": [2048, 1000], "WindowWidth": [4096, 800]}, ""),
        ({"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": "SIGMOID"}, ""),
        ({"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": "LINEAR_EXACT"}, ""),
        ({"WindowCenter": 2048, "WindowWidth": 0}, "no_window"),
        ({"WindowCenter": 2048, "WindowWidth": -4}, "no_window"),
        ({"VOILUTSequence": lookup_table(4096)}, ""),
        ({"VOILUTSequence": lookup_table(4096, bits=8)}, ""),
        ({"ModalityLUTSequence": lookup_table(4096)}, "no_window"),
        ({"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 3096, "WindowWidth": 8192}, ""),
    ],
)
def test_windows_and_tables_are_followed_in_either_photometric_interpretation(
    tmp_path: Path, photometric: str, changes: dict[str, Any], flags: str
) -> None:
    values = stored_ramp(12)
    values = 4095 - values if photometric == "MONOCHROME1" else values
    row = row_of(tmp_path, dicom_file(values, PhotometricInterpretation=photometric, **changes), "voi")
    assert (row.flagged, row.inverted) == (flags, photometric == "MONOCHROME1")
    assert (row.crop_left, row.crop_width) == (0, 32)


@pytest.mark.parametrize("ends", [(4095, None), (4000, 4095), (4095, 4000)])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_padding_is_background_in_either_photometric_interpretation(
    tmp_path: Path, photometric: str, ends: tuple[int, int | None]
) -> None:
    breast = stored_ramp(12) > 0
    values = np.where(breast, np.clip(stored_ramp(12), 100, 3900), 4095 if photometric == "MONOCHROME2" else 4000)
    values[:, -4:] = 4095
    changes = {"PixelPaddingValue": ends[0]} | ({} if ends[1] is None else {"PixelPaddingRangeLimit": ends[1]})
    row = row_of(tmp_path, dicom_file(values, PhotometricInterpretation=photometric, **changes))
    assert row.crop_left == 0
    assert 24 <= row.crop_width <= 32


def test_padding_of_a_signed_image_may_be_written_as_an_unsigned_number(tmp_path: Path) -> None:
    values = np.where(stored_ramp(12) > 0, stored_ramp(12, signed=True), -2000)
    values[:, -4:] = -2048
    start, elements = elements_of(dicom_file(values))
    greys = []
    for vr in (b"", b"SS", b"US"):
        padding = [Element(0x0028, 0x0120, vr, struct.pack("<h", -2048))] if vr else []
        file = file_of(start, sorted([*elements, *padding], key=lambda one: (one.group, one.number)))
        row = row_of(tmp_path, file)
        greys.append(row.grey)
    assert greys[0] != greys[1] == greys[2]
