from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mammofed_shared.errors import DataError
from mammofed_shared.exam import Report
from mammofed_shared.pseudonyms import Pseudonyms
from mammofed_shared.report.exam_facts import ExamFacts
from mammofed_shared.report.mapping import load_mapping
from mammofed_shared.report.rows import Counts
from mammofed_shared.report.tables import (
    Said,
    read_attributes,
    read_labels,
    read_outcomes,
    read_reports,
    read_teacher,
)

NAMES = Pseudonyms(b"k" * 32)
Reader = Callable[[Path, Pseudonyms, Counts], Iterator[Said]]


def accession(number: str) -> tuple[str, ...]:
    return (NAMES.of("accession", number),)


def csv_file(folder: Path, *lines: str, encoding: str = "utf-8-sig") -> Path:
    path = folder / "table.csv"
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def read(reader: Reader, path: Path) -> tuple[list[Said], dict[str, int]]:
    counts = Counts()
    said = list(reader(path, NAMES, counts))
    return said, dict(+counts)


def test_reports_come_as_one_text_or_as_two_columns(tmp_path: Path) -> None:
    one = csv_file(tmp_path, "Accession,Report", '7,"FINDINGS: a. IMPRESSION: b."')
    assert read(read_reports, one)[0] == [(accession("7"), ExamFacts(report=Report("a.", "b.")))]
    two = csv_file(tmp_path, "study_uid,findings,impression", "1.2,a.,b.")
    assert read(read_reports, two)[0] == [((NAMES.of("study", "1.2"),), ExamFacts(report=Report("a.", "b.")))]


def test_a_row_with_both_keys_stands_under_both(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "accession,study_uid,report", "7,1.2,a.", "8,,b.", ",1.3,c.", ",,d.")
    said, counts = read(read_reports, path)

    assert [keys for keys, _ in said] == [
        (NAMES.of("study", "1.2"), NAMES.of("accession", "7")),
        accession("8"),
        (NAMES.of("study", "1.3"),),
    ]
    assert counts == {"rows": 4, "by_both": 1, "by_accession": 1, "by_study": 1, "no_identifier": 1}


def test_a_report_may_say_category_density_kind_patient_and_date(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path, "accession,report,birads,density,kind,patient_id,date", "7,a.,4A,b,Diagnostic,P1,2020-01-10 08:00"
    )
    patient = NAMES.of("patient", "P1")
    day = NAMES.shifted_day(patient, "20200110")

    assert read(read_reports, path)[0] == [
        (accession("7"), ExamFacts(Report("a.", ""), None, {}, "B", 4, "diagnostic", patient, day))
    ]


def test_a_value_that_is_not_understood_costs_that_value(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path,
        "accession,report,birads,density,kind,patient_id,date",
        "7,a.,high,dense,routine,P1,01/02/2020",
        "8,a.,,,,P1,20201345",
        "9,a.,,,,,10.1.2020",
    )
    said, counts = read(read_reports, path)

    assert [facts for _, facts in said] == [
        ExamFacts(Report("a.", ""), patient=NAMES.of("patient", "P1")),
        ExamFacts(Report("a.", ""), patient=NAMES.of("patient", "P1")),
        ExamFacts(Report("a.", "")),
    ]
    assert counts == {
        "rows": 3,
        "by_accession": 3,
        "bad_birads": 1,
        "bad_density": 1,
        "bad_kind": 1,
        "bad_date": 3,
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_header_says_what_divides_the_columns(tmp_path: Path, delimiter: str) -> None:
    path = csv_file(
        tmp_path, delimiter.join(("accession", '"report"', "birads")), delimiter.join(("7", '"a; b, c."', "2"))
    )

    assert read(read_reports, path)[0] == [(accession("7"), ExamFacts(Report("a; b, c.", ""), birads=2))]


def test_a_line_that_is_not_utf8_is_read_as_western_and_counted(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "accession,report", "7,Müller’s.", "8,plain.", encoding="cp1252")
    said, counts = read(read_reports, path)

    assert [facts.report for _, facts in said] == [Report("Müller’s.", ""), Report("plain.", "")]
    assert counts["not_utf8"] == 1
    path.write_bytes(b"accession,report\n7,\x81\xff.\n")
    assert read(read_reports, path)[1]["not_utf8"] == 1


def test_a_bad_row_costs_that_row(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path,
        "accession,report",
        '1,"several\nlines."',
        "2,too,many",
        "3",
        '4,"a quotation mark" inside',
        "",
        ",,",
        "unknown,nobody",
        "000,nobody",
        "4.45E+15,rounded by a spreadsheet",
        "5,",
        "6,good.",
        '7,"never closed',
    )
    said, counts = read(read_reports, path)

    assert [facts.report for _, facts in said] == [Report("several lines.", ""), None, Report("good.", "")]
    assert counts == {
        "rows": 8,
        "by_accession": 3,
        "wrong_number_of_cells": 2,
        "not_csv": 2,
        "no_identifier": 3,
        "no_text": 1,
        "nothing_said": 1,
    }


def test_a_stray_quotation_mark_never_joins_two_patients_reports(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "accession,report", '1,"mine.', '2,"yours."', "3,good.")

    assert [facts.report for _, facts in read(read_reports, path)[0]] == [Report("good.", "")]


def test_a_row_longer_than_any_report_costs_that_row(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "accession,report", f"1,{'x' * 3_000_000}", "2,good.")
    said, counts = read(read_reports, path)

    assert said[-1] == (accession("2"), ExamFacts(Report("good.", "")))
    assert counts["not_csv"] == 3


def test_attributes_keep_only_what_is_given(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path, "accession,finding,value,subtype,laterality", "7,Mass,positive,,Left", "7,calcification,negative,,"
    )
    said = list(read_attributes(path, NAMES, Counts(), load_mapping("standard")))

    assert said == [
        (accession("7"), ExamFacts(attributes=({"finding": "mass", "value": "positive", "laterality": "left"},))),
        (accession("7"), ExamFacts(attributes=({"finding": "calcification", "value": "negative"},))),
    ]


def test_attributes_name_patient_and_day_by_the_mappings_columns(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "empi_anon,acc_anon,study_date_anon,massshape", "11,7,2014-05-06,")
    patient = NAMES.of("patient", "11")

    assert list(read_attributes(path, NAMES, Counts(), load_mapping("embed"))) == [
        (accession("7"), ExamFacts(attributes=(), patient=patient, shifted_day=NAMES.shifted_day(patient, "20140506")))
    ]


def test_an_empty_label_means_that_nobody_knows(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path,
        "study_uid,mass,calcification,density,birads,kind",
        "1.2,1,,b,0,screening",
        "1.3,0,1,,,",
        "1.4,maybe,,,,",
    )
    said, counts = read(read_labels, path)

    assert [facts for _, facts in said] == [
        ExamFacts(labels={"mass": True}, density="B", birads=0, kind="screening"),
        ExamFacts(labels={"mass": False, "calcification": True}),
        ExamFacts(),
    ]
    assert counts == {"rows": 3, "by_study": 3, "bad_label": 1, "nothing_said": 1}


def test_an_identifier_is_never_a_label(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "accession,study_uid,patient_id,date,mass", "7,1,0,1,1")

    assert [facts.labels for _, facts in read(read_labels, path)[0]] == [{"mass": True}]


@pytest.mark.parametrize(
    ("to_cancer", "followed", "expected"),
    [
        ("2", "7", (2, 7)),
        ("100", "5", (None, 5)),
        ("", "5", (None, 5)),
        ("0", "", (0, None)),
        ("1.9", "3.0", (1, 3)),
        ("-1", "3", (None, 3)),
        ("nan", "x", (None, None)),
        ("", "", (None, None)),
    ],
)
def test_outcomes_follow_mirais_convention(
    tmp_path: Path, to_cancer: str, followed: str, expected: tuple[int | None, int | None]
) -> None:
    for name in ("years_to_last_followup", "years_followed"):
        path = csv_file(tmp_path, f"accession,years_to_cancer,{name}", f"7,{to_cancer},{followed}")
        ((_, facts),) = read(read_outcomes, path)[0]
        assert (facts.years_to_cancer, facts.years_followed) == expected


def test_years_that_are_none_are_counted(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "accession,years_to_cancer,years_followed", "7,-1,inf", "8,,")

    assert read(read_outcomes, path)[1] == {"rows": 2, "by_accession": 2, "bad_years": 2, "nothing_said": 2}


@pytest.mark.parametrize("header", ["year1,year2,year3,year4,year5", ",".join(f"{n}_year_risk" for n in range(1, 6))])
def test_teacher_scores_are_five_risks(tmp_path: Path, header: str) -> None:
    path = csv_file(
        tmp_path, f"accession,{header}", "7,0.01,0.02,0.015,0.04,1", "8,0.1,0.2,0.3,0.4,1.2", "9,0.1,,0.3,0.4,0.5"
    )
    said, counts = read(read_teacher, path)

    assert [facts.teacher for _, facts in said] == [(0.01, 0.02, 0.015, 0.04, 1.0), None, None]
    assert counts["bad_risk"] == 2


def test_teacher_scores_may_be_logits(tmp_path: Path) -> None:
    header = ",".join(f"logit{year}" for year in range(1, 6))
    path = csv_file(tmp_path, f"accession,{header}", "7,-2,-1,0,1,2", "8,-1000,-2,-1,0,1", "9,a,-1,0,1,2", "10,,,,,")
    said, counts = read(read_teacher, path)

    seventh = said[0][1].teacher
    assert seventh is not None and [round(risk, 4) for risk in seventh] == [0.1192, 0.2689, 0.5, 0.7311, 0.8808]
    assert [facts.teacher for _, facts in said[1:]] == [None] * 3
    assert counts["bad_risk"] == 2


def test_teacher_scores_may_name_an_exam_by_its_pseudonym_and_other_tables_may_not(tmp_path: Path) -> None:
    exam = NAMES.of("study", "1.2")
    scores = "0.01,0.02,0.03,0.04,0.05"
    path = csv_file(
        tmp_path, "exam,year1,year2,year3,year4,year5", f"{exam},{scores}", f"1.2,{scores}", f"{exam[:31]}G,{scores}"
    )
    said, counts = read(read_teacher, path)

    assert said == [((exam,), ExamFacts(teacher=(0.01, 0.02, 0.03, 0.04, 0.05)))]
    assert counts == {"rows": 3, "by_exam": 1, "no_identifier": 2}
    with pytest.raises(DataError, match="expected accession or study_uid"):
        read(read_labels, csv_file(tmp_path, "exam,mass", f"{exam},1"))


@pytest.mark.parametrize(
    ("reader", "header", "said"),
    [
        (
            read_reports,
            "accession,text",
            "`reports` lacks a column: expected accession or study_uid, and report or find",
        ),
        (read_reports, "patient,report", "accession or study_uid"),
        (read_labels, "Jane Roe,mass", "`labels` lacks a column: expected accession or study_uid; see"),
        (read_outcomes, "accession,years", "years_to_cancer or years_to_last_followup or years_followed"),
        (read_teacher, "accession,risk", "year1 or 1_year_risk or logit1"),
        (read_reports, "accession,report,Report", "two columns of one name"),
        (read_reports, "", "lacks a column"),
    ],
)
def test_a_wrong_header_names_the_expected_columns_and_nothing_of_the_file(
    tmp_path: Path, reader: Reader, header: str, said: str
) -> None:
    with pytest.raises(DataError, match=said) as refused:
        read(reader, csv_file(tmp_path, header, "Jane Roe,7"))
    assert "Jane" not in str(refused.value)
    assert "table.csv" not in str(refused.value)


def test_a_missing_and_a_utf16_csv_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read(read_reports, tmp_path / "none.csv")
    with pytest.raises(DataError, match="UTF-16"):
        read(read_reports, csv_file(tmp_path, "accession,report", encoding="utf-16"))
