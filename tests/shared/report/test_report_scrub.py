from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammofed_shared.pseudonyms import words_of
from mammofed_shared.report.scrub import KINDS, Scrubbed, scrub


def known_by(*texts: str) -> Callable[[str], bool]:
    words = {word for text in texts for word in words_of(text)}
    return words.__contains__


NOBODY = known_by()


@pytest.mark.parametrize(
    ("text", "scrubbed", "kinds"),
    [
        ("Discussed with Dr. Smith.", "Discussed with Dr. [name].", "name"),
        ("Discussed with dr smith today.", "Discussed with dr [name] today.", "name"),
        ("shown to mrs white by dr. long", "shown to mrs [name] by dr. [name]", "name"),
        ("Drs. A. Smith, B. Jones and C. Poe, and Dr.Li.", "Drs. [name] and [name], and Dr.[name].", "name"),
        ("Seen by Dr. Ángel Núñez and Dr. O’Brien-Łuk.", "Seen by Dr. [name] and Dr. [name].", "name"),
        ("Radiologist - Jane Poe; referring: Poe, J.", "Radiologist - [name]; referring: [name]", "name"),
        ("Mrs. Jane Q. Roe agrees.", "Mrs. [name] agrees.", "name"),
        ("Seen by Ms White.", "Seen by Ms [name].", "name"),
        ("Findings were called to Drs. Smith and Jones.", "Findings were called to Drs. [name] and [name].", "name"),
        ("Discussed with Dr. van der Berg.", "Discussed with Dr. [name].", "name"),
        ("Referring physician: Long, Anna", "Referring physician: [name]", "name"),
        ("Patient: Jane Roe", "Patient: [name]", "name"),
        ("Patient's name: ROE^JANE", "Patient's name: [name]", "name"),
        ("Read by Peter O'Brien.", "Read by [name].", "name"),
        ("Results communicated by phone to Susan Poe.", "Results communicated by phone to [name].", "name"),
        ("John Poe, MD", "[name], MD", "name"),
        ("Patient Jane Roe returns.", "Patient [name] returns.", "name"),
        (
            "FINDINGS DISCUSSED WITH DR. POE REGARDING THE MASS.",
            "FINDINGS DISCUSSED WITH DR. [name] REGARDING THE MASS.",
            "name",
        ),
        ("Seen on 01/02/2019.", "Seen on [date].", "date"),
        ("Seen on 1/2/19 at 10:35 AM.", "Seen on [date].", "date"),
        ("Compared to 2019-01-02.", "Compared to [date].", "date"),
        ("Compared to 20190102.", "Compared to [date].", "date"),
        ("Compared to Jan 2, 2019.", "Compared to [date].", "date"),
        ("Compared to January 2nd.", "Compared to [date].", "date"),
        ("Compared to 2 January 2019.", "Compared to [date].", "date"),
        ("Compared to the 2nd of May 2019.", "Compared to the [date].", "date"),
        ("Compared to 3-14-19 and 14.3.19.", "Compared to [date] and [date].", "date"),
        ("DOB:01/02/1950, D01/02/2019; (3/14/2019).", "DOB:[date], D[date]; ([date]).", "date"),
        ("Compared to 12.3.2019.", "Compared to [date].", "date"),
        ("Compared to 02-JAN-2019 and 02Jan2019.", "Compared to [date] and [date].", "date"),
        ("Compared to March 2018 and 03/2017.", "Compared to [date] and [date].", "date"),
        ("Compared to may 2018.", "Compared to [date].", "date"),
        ("New since 3/14.", "New since [date].", "date"),
        ("MRN: 12345.", "MRN: [number].", "number"),
        ("Accession number A-12.34", "Accession number [number]", "number"),
        ("Accession: AB 123, MRN#12-34.", "Accession: [number], MRN#[number].", "number"),
        ("Patient ID: X12", "Patient ID: [number]", "number"),
        ("Number 7654321 and MR1234567.", "Number [number] and [number].", "number"),
        ("Specimen S19-12345.", "Specimen [number].", "number"),
        ("SSN 123-45-6789.", "SSN [number].", "number"),
        ("UID 1.2.840.113619.2.55.3", "UID [number]", "number"),
        (
            "A 93-year-old woman, aged 102, a 95 y/o.",
            "A [number]-year-old woman, aged [number], a [number] y/o.",
            "number",
        ),
        ("Ninety-two year old woman.", "[number] year old woman.", "number"),
        ("Call 555-123-4567 or (555) 123-4567.", "Call [phone] or [phone].", "phone"),
        ("Call +1 555 123 4567, tel:555-1234.", "Call [phone], tel:[phone].", "phone"),
        ("Call +44 20 7946 0958.", "Call [phone].", "phone"),
        ("Fax: 5551234, ext. 4711, pager 1234.", "Fax: [phone], ext. [phone], pager [phone].", "phone"),
        ("Write to jane.roe@example.org.", "Write to [mail].", "mail"),
        ("See https://example.org/p?id=7 there.", "See [mail] there.", "mail"),
    ],
)
def test_an_identifier_is_replaced_by_its_kind(text: str, scrubbed: str, kinds: str) -> None:
    result = scrub(text, NOBODY)

    assert result.text == scrubbed
    assert result.found == (kinds,)


@pytest.mark.parametrize(
    "text",
    [
        "A 1.2 x 0.8 x 0.5 cm mass at 2:00, 5 cm from the nipple.",
        "At the 12 o'clock position, and at 10-11 o’clock.",
        "Spot views at 11:30 and 12:00.",
        "BI-RADS 4A. ACR category 2. BI-RADS 5th edition.",
        "An 89-year-old woman; 95 mm from the nipple; 100 % of the margin.",
        "Calcifications spanning 3-4 mm, 1/3 of them round, 10/12 in number.",
        "Unchanged since 2016. Compared to 2017 and 2018.",
        "Follow-up in 6-12 months. Two views, 4 images.",
        "This may represent a cyst. March of dimes.",
        "Calcifications may be benign. 2 masses. May represent cysts.",
        "In this case no 2 cm mass is seen. In study no mass. Order 2 views. Unit 4.",
        "Extension of 3 cm. Cell rich. Order a biopsy. Unit 3 of the clinic.",
        "The case was reviewed with tomosynthesis. Performed by digital technique. Reported to Radiology.",
        "Patient Breast pain. Patient is asymptomatic. Patient: Screening. Radiologist: none.",
        "The mrs. is well, the dr. was called, ms patient, dr will call. Ms. patient.",
        "The MS PATIENT was imaged. Do not miss Left breast. Nurse present.",
        "Left breast. Right Breast. Small mass. White line.",
        "The score is 12.345 and 1,234.5.",
        "",
    ],
)
def test_what_only_looks_like_an_identifier_stays(text: str) -> None:
    assert scrub(text, NOBODY) == Scrubbed(text, ())


def test_the_patient_is_found_without_any_title() -> None:
    is_known = known_by("ROE^JANE^MARIE", "Müller", "Poe", "77-4711")
    text = "Jane Roe is seen. Roe, Jane. MÜLLER agrees, Muller too; Poe's plan. jane was told. File 77-4711."

    assert scrub(text, is_known).text == (
        "[name] is seen. [name]. [name] agrees, [name] too; [name]'s plan. [name] was told. File [number]."
    )


def test_parts_that_are_joined_to_a_known_name_go_with_it() -> None:
    is_known = known_by("Brien", "Roe", "Wei")

    assert scrub("O'Brien-Smith, A. Roe, and Wei Li came.", is_known).text == "[name], and [name] came."
    assert scrub("Roe-like, Roe's", is_known).text == "[name]-like, [name]'s"


@pytest.mark.parametrize("name", ["Small", "White", "Long", "Young", "Stone", "Brown"])
def test_a_name_that_is_an_ordinary_word_is_struck_as_a_name_only(name: str) -> None:
    text = f"There is a {name.lower()} mass. It was shown to Anna {name}."

    assert scrub(text, known_by(f"{name}^Anna")).text == f"There is a {name.lower()} mass. It was shown to [name]."


def test_digits_that_are_known_stay_where_they_measure() -> None:
    is_known = known_by("12345", "120")

    assert (
        scrub("12345 seen, 120 mm, 120.5 and 3.120 cm.", is_known).text == "[number] seen, 120 mm, 120.5 and 3.120 cm."
    )


def test_known_words_are_asked_for_as_words_of_gives_them() -> None:
    asked: list[str] = []
    text = "Résumé of MÜLLER: the mass at 12345 is Straße."

    def is_known(word: str) -> bool:
        asked.append(word)
        return False

    scrub(text, is_known)

    assert {"muller", "12345", "strasse"} <= set(asked) <= set(words_of(text))
    assert not {"the", "mass"} & set(asked)


def test_kinds_are_sorted_and_given_once() -> None:
    result = scrub("Dr. Poe, 555-123-4567, Dr. Roe, 01/02/2019, MRN 12, a@b.org", NOBODY)

    assert result.found == KINDS == tuple(sorted(KINDS))


PIECES = (
    *(
        "Dr.",
        "Drs",
        "Mrs",
        "Poe",
        "White",
        "small",
        "Jane",
        "J.",
        "O'Brien",
        "van",
        "MD,",
        "MD",
        "patient",
        "Patient:",
        "by",
    ),
    *(
        "read by",
        "discussed with",
        "01/02/2019",
        "Jan 2,",
        "2019",
        "May",
        "may",
        "2",
        "12:30",
        "PM",
        "MRN:",
        "ID: A7",
        "1234567",
    ),
    *(
        "555-123-4567",
        "ext. 12",
        "a@b.org",
        "www.x.org",
        "93",
        "year old",
        "[name]",
        "[date]",
        "mass",
        "1.2 x 0.8 cm",
        ".",
        "\n",
    ),
    *("and", "Name", "Wei Li", "S19-12345", "fax", "DEAR", "&", "number", "Date", "aged"),
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map(" ".join) | st.text(max_size=60))
def test_a_second_time_finds_nothing(text: str) -> None:
    is_known = known_by("Jane White", "name", "date", "O'Brien")
    once = scrub(text, is_known)

    assert scrub(once.text, is_known) == Scrubbed(once.text, ())
    assert bool(once.found) == (once.text != text)
