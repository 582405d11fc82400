"""What becomes of a patient's age: one word of a short list."""

import io
from dataclasses import replace

import pytest

from dicom_encodings import dicom_file
from mammofed_shared.dicom.age import age_band_of
from mammofed_shared.dicom.header import read_header


def band(*, age: str = "", born: str = "") -> str | None:
    header, _ = read_header(io.BytesIO(dicom_file(StudyDate="20200110")))
    return age_band_of(replace(header, age=age, birth_date=born))


def test_age_and_date_of_birth_are_read_of_the_header() -> None:
    header, _ = read_header(io.BytesIO(dicom_file(PatientAge="045Y", PatientBirthDate="19740315")))
    assert (header.age, header.birth_date) == ("045Y", "19740315")


@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        (("018Y", "039Y"), "<40"),
        (("040Y", "049Y"), "40-49"),
        (("050Y", "059Y"), "50-59"),
        (("060Y", "069Y"), "60-69"),
        (("070Y", "089Y", "103Y"), "70+"),
    ],
)
def test_an_age_becomes_its_band(ages: tuple[str, ...], expected: str) -> None:
    assert {band(age=age) for age in ages} == {expected}


@pytest.mark.parametrize(("born", "expected"), [("19700110", "50-59"), ("19700111", "40-49"), ("19600229", "50-59")])
def test_without_an_age_the_years_from_birth_to_the_exam_count(born: str, expected: str) -> None:
    assert band(born=born) == expected


def test_the_stated_age_counts_more_than_the_dates() -> None:
    assert band(age="045Y", born="19400101") == "40-49"


@pytest.mark.parametrize("age", ["000Y", "999Y", "006M", "45", "YYY", "", "45.5Y"])
def test_what_is_no_age_of_an_adult_leaves_the_dates_to_say_it(age: str) -> None:
    assert band(age=age, born="19550110") == "60-69"
    assert band(age=age) is None


@pytest.mark.parametrize("born", ["18000101", "20190101", "20300101", "19551332", "1955", "unknown"])
def test_dates_that_give_no_age_of_an_adult_give_no_band(born: str) -> None:
    assert band(born=born) is None
