import io
import struct
import zlib
from typing import Any

import pytest
from pydicom.dataset import Dataset

from dicom_encodings import DEFLATED_LE, EXPLICIT_LE, Element, dicom_file, elements_of, file_of
from mammofed_shared.dicom import data_set
from mammofed_shared.dicom.header import Header, read_header
from mammofed_shared.errors import UnreadableImage


def header_of(file: bytes | None = None, **changes: Any) -> Header:
    return read_header(io.BytesIO(dicom_file(**changes) if file is None else file))[0]


def with_element(element: Element, **changes: Any) -> bytes:
    start, elements = elements_of(dicom_file(**changes))
    return file_of(start, sorted([*elements, element], key=lambda one: (one.group, one.number)))


def test_the_identity_holds_every_text_by_which_somebody_is_known() -> None:
    other = Dataset()
    other.PatientID = "MRN 77"
    header = header_of(
        PatientName="Müller^Anna=山田",
        SpecificCharacterSet="ISO_IR 192",
        OtherPatientNames=["Schmidt^Anna", "Smith^Ann"],
        OtherPatientIDsSequence=[other],
        ReferringPhysicianName="Jones^R",
        OperatorsName=["Lee^K", ""],
        InstitutionName="St Mary",
        PatientAddress="1 High Street",
    )
    expected = {"Müller^Anna=山田", "P1", "A1", "Schmidt^Anna", "Smith^Ann", "MRN 77", "Jones^R", "Lee^K", "St Mary"}
    assert set(header.identity) == expected | {"1 High Street"}


def test_an_object_without_names_has_no_identity() -> None:
    assert header_of(PatientName=None, PatientID=None, AccessionNumber=None).identity == ()


@pytest.mark.parametrize(
    ("changes", "spacing_mm"),
    [
        ({"ImagerPixelSpacing": [0.07, 0.08], "PixelSpacing": [0.06, 0.06]}, (0.07, 0.08)),
        ({"ImagerPixelSpacing": None, "PixelSpacing": [0.06, 0.05]}, (0.06, 0.05)),
        ({"ImagerPixelSpacing": [0, 0], "PixelSpacing": [0.06, 0.05]}, (0.06, 0.05)),
        ({"ImagerPixelSpacing": [0.07, -1]}, None),
        ({"ImagerPixelSpacing": 0.07}, None),
        ({"ImagerPixelSpacing": None}, None),
    ],
)
def test_spacing_is_that_of_rows_and_of_columns_or_unknown(
    changes: dict[str, Any], spacing_mm: tuple[float, float] | None
) -> None:
    assert header_of(**changes).spacing_mm == spacing_mm


def test_the_description_of_the_study_is_read() -> None:
    assert header_of(StudyDescription="MAMMO SCREENING").study_description == "MAMMO SCREENING"


@pytest.mark.parametrize("text", [b"nan ", b"inf ", b"1e400 ", b"12x4", b"\xff\xfe"])
def test_a_number_that_is_none_is_a_bad_header(text: bytes) -> None:
    with pytest.raises(UnreadableImage) as refused:
        header_of(with_element(Element(0x0028, 0x1053, b"DS", text)))
    assert refused.value.reason == "bad_header"


def test_an_identifier_in_the_place_of_a_number_of_pixels_is_not_repeated() -> None:
    start, elements = elements_of(dicom_file())
    wrong = [
        Element(0x28, 0x10, b"IS", b"774130295861") if (e.group, e.number) == (0x28, 0x10) else e for e in elements
    ]
    with pytest.raises(UnreadableImage) as refused:
        header_of(file_of(start, wrong))
    assert str(refused.value) == "bad_header: pydicom: ValueError"


@pytest.mark.parametrize("vr", [b"US", b"SS"])
@pytest.mark.parametrize(("signed", "first"), [(0, 5), (1, -2048)])
def test_the_descriptor_of_a_table_may_be_written_with_the_other_sign(vr: bytes, signed: int, first: int) -> None:
    descriptor = Element(0x0028, 0x3002, vr, struct.pack("<HHH", 40000, first & 0xFFFF, 12)).written()
    data = Element(0x0028, 0x3006, b"OW", struct.pack("<40000H", *range(40000))).written()
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(descriptor) + len(data)) + descriptor + data
    table = header_of(with_element(Element(0x0028, 0x3010, b"SQ", item), PixelRepresentation=signed)).voi_lut
    assert table is not None
    assert (table.first_value, table.bits, len(table.entries), table.entries[-1]) == (first, 12, 40000, 39999)


@pytest.mark.parametrize("size", [1 << 17, 1 << 18, (1 << 18) + 60000])
def test_a_header_of_any_length_is_read_to_its_pixels(size: int) -> None:
    private = Element(0x0029, 0x1010, b"OB", b"\1" * size)
    header, file = read_header(io.BytesIO(with_element(private)))
    assert header.rows == 48
    assert file.read(8) == b"\xe0\x7f\x10\x00OW\0\0"


def test_a_deflated_file_comes_back_as_what_it_packs() -> None:
    header, file = read_header(io.BytesIO(dicom_file(syntax=DEFLATED_LE)))
    assert header.transfer_syntax == EXPLICIT_LE
    assert file.read(4) == b"\xe0\x7f\x10\x00"


def test_a_small_file_that_unpacks_to_gigabytes_costs_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_set, "_MOST_INFLATED", 1 << 20)
    start, elements = elements_of(dicom_file())
    bomb = file_of(b"", [*elements[:-1], Element(0x7FE0, 0x10, b"OW", bytes(64 << 20))])
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = start.replace(b"\x14\x001.2.840.10008.1.2.1\0", b"\x16\x001.2.840.10008.1.2.1.99")
    packed = packed[:140] + struct.pack("<L", len(packed) - 144) + packed[144:]
    _, file = read_header(io.BytesIO(packed + packer.compress(bomb) + packer.flush()))
    assert len(file.read()) <= 1 << 20
