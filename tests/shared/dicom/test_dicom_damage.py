"""Files that are cut, padded, mislabelled or no DICOM at all: each is answered with its word, none is half read.

The kinds are those of the project's acceptance corpus; the files are made here.
"""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicom_answers import word_of
from dicom_encodings import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    HTJ2K_LOSSLESS,
    IMPLICIT_LE,
    J2K_LOSSLESS,
    JPEG_BASELINE,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    LOSSLESS,
    NATIVE,
    RLE,
    Element,
    codestream,
    dicom_file,
    elements_of,
    file_of,
    stored_ramp,
)
from mammofed_shared.dicom.reasons import BY_WORD, Kind

ENCAPSULATED = tuple(syntax for syntax in LOSSLESS if syntax not in NATIVE)
ALIKE = ({JPEG_LOSSLESS, JPEG_LOSSLESS_SV1}, {J2K_LOSSLESS, HTJ2K_LOSSLESS}, *({syntax} for syntax in ENCAPSULATED))
"""Syntaxes whose code streams tell their kind themselves."""
ANY_CODEC = (*ENCAPSULATED, JPEG_BASELINE)


def mammogram(syntax: str, **changes: Any) -> bytes:
    return dicom_file(syntax=syntax, bits=8 if syntax == JPEG_BASELINE else 12, **changes)


def stream_of(syntax: str, **size: int) -> bytes:
    codes = stored_ramp(12, **size)
    is_baseline = syntax == JPEG_BASELINE
    return codestream((codes >> 4).astype(np.uint8) if is_baseline else codes.astype(np.uint16), syntax, 12)


def test_a_header_that_is_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    whole = mammogram(EXPLICIT_LE)
    pixels = whole.index(b"\xe0\x7f\x10\x00OW")
    words = {cut: word_of(tmp_path, whole[:cut]) for cut in range(1, pixels, 3)}
    assert {
        cut: word for cut, word in words.items() if word == "accepted" or BY_WORD[word].kind is not Kind.ERROR
    } == {}


@pytest.mark.parametrize("syntax", [*NATIVE, *ANY_CODEC])
def test_pixels_that_are_cut_are_truncated(tmp_path: Path, syntax: str) -> None:
    whole = mammogram(syntax)
    for cut in (1, 8, 60, len(whole) // 4):
        assert word_of(tmp_path, whole[:-cut]) == "truncated"


@pytest.mark.parametrize("syntax", ANY_CODEC)
def test_a_code_stream_that_is_cut_inside_a_whole_file_is_corrupt(tmp_path: Path, syntax: str) -> None:
    stream = stream_of(syntax)
    for cut in (len(stream) // 3, len(stream) // 2):
        assert word_of(tmp_path, mammogram(syntax, stream=stream[:cut])) == "corrupt_codestream"


@pytest.mark.parametrize("syntax", ANY_CODEC)
def test_a_code_stream_of_another_size_is_refused_before_it_is_decoded(tmp_path: Path, syntax: str) -> None:
    for size in ({"rows": 56}, {"rows": 40}, {"columns": 48}, {"columns": 32}):
        word = word_of(tmp_path, mammogram(syntax, stream=stream_of(syntax, **size)))
        assert word == ("corrupt_codestream" if syntax == RLE else "size_mismatch")


@pytest.mark.parametrize("syntax", ENCAPSULATED)
def test_a_code_stream_under_another_syntax_is_corrupt(tmp_path: Path, syntax: str) -> None:
    for other in ENCAPSULATED:
        if not any({syntax, other} <= family for family in ALIKE):
            assert word_of(tmp_path, mammogram(syntax, stream=stream_of(other))) == "corrupt_codestream"


def test_compressed_pixels_under_a_plain_syntax_and_the_reverse_are_corrupt(tmp_path: Path) -> None:
    compressed, plain = mammogram(JPEG_LS), mammogram(EXPLICIT_LE)
    swapped = file_of(elements_of(plain)[0], elements_of(compressed)[1])
    assert word_of(tmp_path, swapped) == "corrupt_codestream"
    swapped = file_of(elements_of(compressed)[0], elements_of(plain)[1])
    assert word_of(tmp_path, swapped) == "corrupt_codestream"


@pytest.mark.parametrize("syntax", [*NATIVE, *ENCAPSULATED])
def test_what_stands_behind_the_pixels_is_left_alone(tmp_path: Path, syntax: str) -> None:
    padding = Element(0xFFFC, 0xFFFC, b"OB", b"\0" * 64).written(is_implicit=syntax == IMPLICIT_LE)
    for behind in (padding, b"\0" * 512, b"\x17garbage" * 9):
        assert word_of(tmp_path, mammogram(syntax) + behind) == "accepted"


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        *(
            ({keyword: None}, f"missing_{keyword}")
            for keyword in (
                *("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation"),
                *("PixelData", "PatientID", "StudyInstanceUID", "SOPInstanceUID"),
            )
        ),
        ({"Rows": 0}, "size_mismatch"),
        ({"Rows": 58}, "size_mismatch"),
        ({"Rows": 38}, "size_mismatch"),
        ({"Columns": 50}, "size_mismatch"),
        ({"Rows": 65535, "Columns": 65535}, "size_mismatch"),
        ({"BitsStored": 40}, "bad_bits"),
        ({"BitsStored": 0}, "bad_bits"),
        ({"BitsStored": 17}, "bad_bits"),
        ({"BitsAllocated": 12}, "bad_bits"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "bad_bits"),
        ({"HighBit": 15}, "bad_bits"),
        ({"PixelRepresentation": 2}, "bad_bits"),
        ({"PixelData": b"", "Rows": 1}, "size_mismatch"),
    ],
)
def test_an_attribute_that_is_missing_or_impossible_is_named(
    tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    assert word_of(tmp_path, mammogram(EXPLICIT_LE, **changes)) == word


@pytest.mark.parametrize("highest", [0, 700])
def test_a_constant_image_is_blank(tmp_path: Path, highest: int) -> None:
    assert word_of(tmp_path, dicom_file(np.full((48, 40), highest))) == "blank_image"


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.102", "1.2.840.113619.5.2", "1.2.3"]
)
def test_a_syntax_without_a_decoder_is_unsupported(tmp_path: Path, syntax: str) -> None:
    start, elements = elements_of(mammogram(JPEG_LS))
    assert word_of(tmp_path, file_of(with_syntax(start, syntax), elements)) == "unsupported_transfer_syntax"


@pytest.mark.parametrize(
    ("said", "found"), [(EXPLICIT_LE, IMPLICIT_LE), (IMPLICIT_LE, EXPLICIT_LE), (EXPLICIT_BE, EXPLICIT_LE)]
)
def test_a_data_set_that_is_encoded_otherwise_than_it_says_is_refused(tmp_path: Path, said: str, found: str) -> None:
    start, elements = elements_of(mammogram(EXPLICIT_LE))
    file = file_of(with_syntax(start, said), elements, is_implicit=found == IMPLICIT_LE)
    assert word_of(tmp_path, file) == ("truncated" if said == EXPLICIT_BE else "bad_header")


def with_syntax(start: bytes, syntax: str) -> bytes:
    """File meta information with nothing but a transfer syntax, after the preamble of ``start``."""
    meta = Element(2, 0x10, b"UI", syntax.encode() + b"\0" * (len(syntax) % 2)).written()
    return start[:132] + Element(2, 0, b"UL", struct.pack("<L", len(meta))).written() + meta


def test_old_files_without_a_preamble_are_read_and_those_without_a_syntax_are_not(tmp_path: Path) -> None:
    whole = mammogram(EXPLICIT_LE)
    start, elements = elements_of(whole)
    assert word_of(tmp_path, whole[132:]) == "accepted"
    assert word_of(tmp_path, file_of(b"", elements)) == "not_dicom"
    assert word_of(tmp_path, file_of(b"", elements, is_implicit=True)) == "not_dicom"
    assert word_of(tmp_path, file_of(start[:132], elements)) == "not_dicom"


def zipped(file: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("image.dcm", file)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("file", "word"),
    [
        (b"", "empty_file"),
        (b"\0" * 2000, "not_dicom"),
        (b"\0" * 128 + b"DICM", "not_dicom"),
        (b"\x89PNG\r\n\x1a\n" + b"\1" * 300, "not_dicom"),
        (b"\xff\xd8\xff\xe0" + b"\1" * 300, "not_dicom"),
        (b"patient;date\n" * 40, "not_dicom"),
        (zipped(mammogram(EXPLICIT_LE)), "not_dicom"),
        (b"\0" * 128 + b"DICM" + np.random.default_rng(0).bytes(3000), "not_dicom"),
    ],
)
def test_what_is_no_dicom_is_said_to_be_none(tmp_path: Path, file: bytes, word: str) -> None:
    assert word_of(tmp_path, file) == word


def test_a_directory_and_a_report_hold_no_pixels(tmp_path: Path) -> None:
    image_keywords = ("Rows", "Columns", "PixelData", "ViewPosition", "ImageLaterality")
    for sop_class, modality in (
        ("1.2.840.10008.1.3.10", None),
        ("1.2.840.10008.5.1.4.1.1.88.33", "SR"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "PR"),
        ("1.2.840.10008.5.1.4.1.1.88.59", "KO"),
    ):
        changes = dict.fromkeys(image_keywords) | {"SOPClassUID": sop_class, "Modality": modality}
        assert word_of(tmp_path, mammogram(EXPLICIT_LE, **changes)) == "no_pixels"


def test_an_icon_is_not_taken_for_the_image(tmp_path: Path) -> None:
    start, elements = elements_of(mammogram(EXPLICIT_LE))
    pixels = Element(0x7FE0, 0x10, b"OB", b"\7" * 16).written()
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(pixels)) + pixels
    icon = Element(0x0088, 0x0200, b"SQ", item)
    assert word_of(tmp_path, file_of(start, [*elements[:-1], icon, elements[-1]])) == "accepted"


def test_a_deflated_file_that_is_damaged_inside_is_corrupt(tmp_path: Path) -> None:
    whole = bytearray(mammogram(DEFLATED_LE))
    middle = len(whole) // 2
    whole[middle : middle + 200] = b"\xff" * 200
    assert word_of(tmp_path, bytes(whole)) == "corrupt_codestream"
