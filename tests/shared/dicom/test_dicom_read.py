import io
from typing import Any

import dicomsdl
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicom_fixtures import breast_pixels, mammogram_dataset
from mammofed_shared.dicom.header import read_header
from mammofed_shared.dicom.read import decode, stored_values
from mammofed_shared.errors import UnreadableImage


def file_of(pixels: NDArray[np.uint16] | None = None, **changes: Any) -> bytes:
    buffer = io.BytesIO()
    mammogram_dataset(pixels, **changes).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def values_of(file: bytes) -> NDArray[np.int32]:
    header, opened = read_header(io.BytesIO(file))
    return stored_values(*decode(header, opened))


def reason_of(file: bytes) -> str:
    with pytest.raises(UnreadableImage) as refused:
        values_of(file)
    return refused.value.reason


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_every_little_endian_way_of_writing_gives_the_same_values(syntax: str) -> None:
    np.testing.assert_array_equal(values_of(file_of(transfer_syntax=syntax)), breast_pixels())


def test_big_endian_pixels_are_swapped() -> None:
    swapped = breast_pixels().astype(">u2").tobytes()
    np.testing.assert_array_equal(
        values_of(file_of(transfer_syntax=ExplicitVRBigEndian, PixelData=swapped)), breast_pixels()
    )


def test_plain_pixels_are_what_dicomsdl_reads() -> None:
    file = file_of()
    np.testing.assert_array_equal(values_of(file), dicomsdl.open_memory(file).pixelData(0, storedvalue=True))


def test_bits_above_the_stored_ones_are_cleared() -> None:
    assert values_of(file_of(breast_pixels() | 0xA000)).max() == breast_pixels().max()


def test_a_signed_value_is_extended_from_its_stored_bits() -> None:
    pixels = np.full((4, 4), 0x0FFF, np.uint16)
    pixels[0, 0] = 0x07FF
    values = values_of(file_of(pixels, PixelRepresentation=1))
    assert (values[0, 0], values[1, 1]) == (2047, -1)


def test_a_file_cut_by_one_byte_is_truncated() -> None:
    assert reason_of(file_of()[:-1]) == "truncated"


def test_a_deflated_file_that_was_cut_is_truncated() -> None:
    assert reason_of(file_of(transfer_syntax=DeflatedExplicitVRLittleEndian)[:-400]) == "truncated"


def test_a_size_that_the_pixels_do_not_fill_is_refused_before_memory_is_taken() -> None:
    assert reason_of(file_of(Rows=65535, Columns=65535)) == "size_mismatch"


@pytest.mark.parametrize(
    "keyword", ["Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PixelData"]
)
def test_a_missing_attribute_is_named(keyword: str) -> None:
    assert reason_of(file_of(**{keyword: None})) == f"missing_{keyword}"


@pytest.mark.parametrize("changes", [{"BitsStored": 40}, {"BitsAllocated": 32}, {"HighBit": 15}, {"BitsStored": 0}])
def test_bits_that_do_not_fit_each_other_are_refused(changes: dict[str, int]) -> None:
    assert reason_of(file_of(**changes)) == "bad_bits"


def test_a_colour_image_is_refused() -> None:
    assert reason_of(file_of(SamplesPerPixel=3, PhotometricInterpretation="RGB")) == "not_greyscale"


def test_rubbish_after_the_dicom_mark_is_no_dicom() -> None:
    rubbish = np.random.default_rng(0).bytes(5000)
    assert reason_of(b"\0" * 128 + b"DICM" + rubbish) == "not_dicom"


def test_an_attribute_that_cannot_be_parsed_is_a_bad_header() -> None:
    file = file_of(WindowCenter="1234", WindowWidth="4000")
    assert file.count(b"1234") == 1
    assert reason_of(file.replace(b"1234", b"12x4")) == "bad_header"


def test_an_image_keeps_its_values_while_others_are_read() -> None:
    first, second = breast_pixels(), breast_pixels()[::-1].copy()
    header, file = read_header(io.BytesIO(file_of(first)))
    kept, _ = decode(header, file)
    for _ in range(3):
        np.testing.assert_array_equal(values_of(file_of(second)), second)
    np.testing.assert_array_equal(kept, first)


def test_the_memory_of_an_image_that_is_gone_is_used_again() -> None:
    addresses = set()
    for _ in range(4):
        header, file = read_header(io.BytesIO(file_of()))
        codes, _ = decode(header, file)
        addresses.add(codes.ctypes.data)
        del codes
    assert len(addresses) == 1
