import importlib.util
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from mammofed_shared.config.site import DatasetSettings
from mammofed_shared.dicom.structured_report import NoReport, StructuredReport, read_structured_report
from mammofed_shared.errors import ConfigurationError, DataError
from mammofed_shared.exam import Report
from mammofed_shared.pseudonyms import Pseudonyms
from mammofed_shared.report.exam_facts import _ONE_VALUE, ExamFacts
from mammofed_shared.report.mapping import _WORDS
from mammofed_site.exam_facts import DatasetFacts, read_facts

ROOT = Path(__file__).parents[2]
NAMES = Pseudonyms(b"k" * 32)


def study(uid: str) -> str:
    return NAMES.of("study", uid)


def accession(number: str) -> str:
    return NAMES.of("accession", number)


def facts(folder: Path, **tables: str | Path) -> DatasetFacts:
    """The facts of a data set whose tables have these contents; a path stands as it is."""
    settings: dict[str, Any] = {"name": "main", "attributes_mapping": tables.pop("attributes_mapping", "standard")}
    for table, content in tables.items():
        if isinstance(content, Path):
            settings[table] = content
        else:
            settings[table] = folder / f"{table}.csv"
            settings[table].write_text(content, encoding="utf-8")
    return read_facts(DatasetSettings.model_validate(settings), NAMES)


def test_a_data_set_without_tables_knows_nothing(tmp_path: Path) -> None:
    nothing = facts(tmp_path)

    assert nothing.of(study("1.2"), [accession("7")]) == ExamFacts()
    assert nothing.cohort() == {}
    assert nothing.counts == {}


def test_tables_are_joined_by_either_key(tmp_path: Path) -> None:
    found = facts(
        tmp_path,
        reports="study_uid,report\n1.2,No masses.\n",
        labels="accession,mass,density\n7,0,B\n",
        attributes="accession,study_uid,finding,value\n7,1.2,mass,negative\n",
        outcomes="accession,years_to_cancer,years_to_last_followup\n7,100,6\n",
        teacher="study_uid,year1,year2,year3,year4,year5\n1.2,0.1,0.2,0.3,0.4,0.5\n",
    )

    assert found.of(study("1.2"), [accession("7")]) == ExamFacts(
        report=Report("No masses.", ""),
        attributes=({"finding": "mass", "value": "negative"},),
        labels={"mass": False},
        density="B",
        years_followed=6,
        teacher=(0.1, 0.2, 0.3, 0.4, 0.5),
    )
    assert found.of(study("1.2"), []).labels == {}
    assert found.of(study("9"), [accession("9")]) == ExamFacts()
    assert found.counts["labels"] == {"by_accession": 1, "rows": 1}


def test_a_row_under_both_keys_is_one_row(tmp_path: Path) -> None:
    found = facts(tmp_path, reports="accession,study_uid,report\n7,1.2,First.\n7,,Addendum.\n7,1.2,First.\n")

    assert found.of(study("1.2"), [accession("7")]).report == Report("First. Addendum.", "")
    assert found.of(study("1.2"), []).report == Report("First.", "")
    assert found.counts["reports"]["repeated"] == 1


def test_a_category_comes_from_a_column_or_the_mapping_or_else_from_the_text(tmp_path: Path) -> None:
    found = facts(
        tmp_path,
        reports="accession,impression,birads\n1,BI-RADS 2.,1\n2,BI-RADS 2.,\n3,BI-RADS 2.,\n",
        attributes="accession,finding,value,birads\n1,mass,negative,0\n2,mass,negative,0\n",
    )

    assert [found.of("", [accession(number)]).birads for number in "123"] == [1, 0, 2]


def test_labels_count_more_than_other_tables(tmp_path: Path) -> None:
    found = facts(
        tmp_path,
        labels="accession,mass,density\n7,1,A\n",
        attributes="acc_anon,massshape,tissueden,path_severity\n7,O,3,1\n",
        attributes_mapping="embed",
    ).of("", [accession("7")])

    assert (found.density, found.labels) == ("A", {"mass": True, "cancer": True})


def test_rows_that_contradict_each_other_are_counted_and_say_nothing(tmp_path: Path) -> None:
    found = facts(tmp_path, labels="accession,mass,density\n7,1,A\n7,0,B\n")

    assert found.of("", [accession("7")]) == ExamFacts()
    assert found.counts["labels"] == {
        "by_accession": 2,
        "contradicting_density": 1,
        "contradicting_labels": 1,
        "rows": 2,
    }


def test_nothing_is_told_of_an_exam_that_two_patients_claim(tmp_path: Path) -> None:
    found = facts(
        tmp_path,
        reports="accession,report,patient_id\n7,Mine.,P1\n8,Mine.,P1\n",
        labels="accession,study_uid,mass,patient_id\n7,1.2,1,P2\n",
    )

    assert found.of(study("1.2"), [accession("7")]) == ExamFacts()
    assert found.of(study("1.2"), []).labels == {"mass": True}
    assert found.of(study("1.3"), [accession("8")]).report == Report("Mine.", "")


def test_a_number_that_very_many_rows_share_names_no_exam(tmp_path: Path) -> None:
    rows = "".join(f"XX,Report of patient {number}.\n" for number in range(1000))
    found = facts(tmp_path, reports=f"accession,report\n{rows}7,Good.\n")

    assert found.of("", [accession("XX")]) == ExamFacts()
    assert found.of("", [accession("7")]).report == Report("Good.", "")
    assert found.counts["reports"]["crowded_key"] == 800


def test_a_finding_that_cannot_be_told_leaves_no_empty_text(tmp_path: Path) -> None:
    found = facts(
        tmp_path,
        attributes="acc_anon,massshape,tissueden,asses\n1,,,B\n2,,2,B\n3,,2,N\n",
        attributes_mapping="embed",
    )

    assert found.of("", [accession("1")]).attributes is None
    assert found.of("", [accession("2")]) == ExamFacts(attributes=(), density="B", birads=2)
    assert len(found.of("", [accession("3")]).attributes or ()) == 4


EMBED = """empi_anon,acc_anon,study_date_anon,desc,asses,tissueden,side,massshape
1,10,2014-01-01,MG Screening Bilateral,N,2,B,
1,11,2015-01-01,MG Screening Bilateral,A,2,L,X
1,11,2015-01-01,MG Screening Bilateral,N,2,R,
1,12,2015-01-20,MG Diagnostic Unilateral,S,2,L,X
2,20,2014-01-01,MG Screening Bilateral,B,1,B,
2,21,2014-09-01,MG Diagnostic Bilateral,M,1,R,X
3,30,2014-01-01,MG Screening Bilateral,P,,B,
4,40,01/02/2014,MG Screening Bilateral,N,,B,
5,50,2014-01-01,US Breast,S,,B,
"""


def test_the_cohort_is_drawn_from_the_tables_alone(tmp_path: Path) -> None:
    found = facts(tmp_path, attributes=EMBED, attributes_mapping="embed")

    assert found.cohort() == {accession("11"): "positive", accession("20"): "negative"}
    assert found.counts["attributes"] == {"bad_date": 1, "by_accession": 9, "rows": 9}


def test_the_cohort_names_an_exam_by_all_its_keys(tmp_path: Path) -> None:
    found = facts(
        tmp_path,
        attributes=EMBED,
        attributes_mapping="embed",
        labels="accession,study_uid,mass\n11,1.2.11,1\n20,1.2.20,0\n",
    )

    assert found.cohort() == {
        accession("11"): "positive",
        study("1.2.11"): "positive",
        accession("20"): "negative",
        study("1.2.20"): "negative",
    }


def sr_module() -> Any:
    """The writer of DICOM reports that the tests of the reader use."""
    path = Path(__file__).parents[1] / "shared/dicom/test_structured_report.py"
    spec = importlib.util.spec_from_file_location("structured_report_files", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_folder_holds_text_files_and_structured_reports(tmp_path: Path) -> None:
    sr = sr_module()
    folder = tmp_path / "reports"
    (folder / "2020" / ".hidden").mkdir(parents=True)
    (folder / "2020" / "A1.txt").write_text("FINDINGS: A.\nIMPRESSION: B. BI-RADS 2.")
    (folder / "1.2.840.5.txt").write_bytes("Größe.".encode("cp1252"))
    (folder / "unknown.txt").write_text("Nobody's.")
    (folder / "empty.txt").write_text("")
    (folder / "large.txt").write_text("x" * 2_000_000)
    (folder / "2020" / ".hidden" / "A2.txt").write_text("Hidden.")
    (folder / "page.html").write_text("<p>A report.</p>")
    (folder / "scan.dcm").write_bytes(bytes(128) + b"DICMrubbish")
    sr.write_report(folder / "SR1", sr.text(sr.FINDING, "No mass."), sr.text(sr.IMPRESSION, "BI-RADS 1."))
    sr.write_report(folder / "SR2", sr.text(sr.FINDING, "A mark."), sop_class=sr.CAD)
    found = facts(tmp_path, reports=folder)

    assert found.of("", [accession("A1")]).report == Report("A.", "B. BI-RADS 2.")
    assert found.of(study("1.2.840.5"), []).report == Report("Größe.", "")
    patient = NAMES.of("patient", "P1")
    assert found.of(study("1.2.3"), [accession("A7")]) == ExamFacts(
        report=Report("No mass.", "BI-RADS 1."),
        birads=1,
        patient=patient,
        shifted_day=NAMES.shifted_day(patient, "20200110"),
    )
    assert found.counts["reports"] == {
        "files": 9,
        "passed_over": 1,
        "by_name": 2,
        "by_both": 1,
        "no_identifier": 1,
        "no_text": 1,
        "too_large": 1,
        "not_utf8": 1,
        "unreadable": 1,
        "mammography_cad": 1,
    }


def test_a_structured_report_without_sections_is_divided_by_its_headings(tmp_path: Path) -> None:
    sr = sr_module()
    (tmp_path / "reports").mkdir()
    narrative = sr.text(sr.code("X", "Report", "99"), "History: Lump.\nFindings: A cyst.\nImpression: BI-RADS 2.")
    sr.write_report(tmp_path / "reports" / "SR", narrative)
    found = facts(tmp_path, reports=tmp_path / "reports").of(study("1.2.3"), [])

    assert (found.report, found.birads) == (Report("A cyst.", "BI-RADS 2."), 2)


@pytest.mark.parametrize(
    ("table", "content", "error"),
    [
        ("labels", "Canary Carol,mass\nCAN4711,1\n", DataError),
        ("reports", "accession,Canary Carol\nCAN4711,x\n", DataError),
        ("outcomes", "accession,Canary Carol\nCAN4711,1\n", DataError),
    ],
)
def test_a_wrong_table_is_refused_without_a_word_of_it(
    tmp_path: Path, table: str, content: str, error: type[Exception]
) -> None:
    with pytest.raises(error) as refused:
        facts(tmp_path, **{table: content})
    assert not any(word in str(refused.value) for word in ("Canary", "Carol", "CAN4711", str(tmp_path)))


def test_an_unknown_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="embed, standard"):
        facts(tmp_path, attributes="accession,finding,value\n", attributes_mapping="Embed")


def test_no_identifier_stands_in_a_log_a_count_or_what_is_printed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    sr = sr_module()
    sr.write_report(folder / "CANARY-4711", sr.text(sr.FINDING, "No mass."))
    (folder / "CANARY4711.txt").write_text("")
    (folder / "CANARY4711.pdf").write_text("")
    with caplog.at_level(logging.DEBUG):
        found = facts(
            tmp_path,
            reports=folder,
            labels='accession,mass,patient_id,date\nCANARY4711,Carol,CANARY4711,31/12/2019\n"CANARY4711',
            attributes="accession,finding,value,density\nCANARY4711,Carol,positive,Carol\nCANARY4711,mass,Carol,Carol\n",
        )
        known = found.of(study("1.2.3"), [accession("A7")])

        read = read_structured_report(folder / "CANARY-4711")

    assert known.report == Report("No mass.", "")
    assert isinstance(read, StructuredReport)
    printed = f"{found!r} {dict(found.counts)!r} {known!r} {read!r} {NAMES!r} {caplog.text}".upper()
    assert not any(word in printed for word in ("CANARY", "CAROL", "4711", "2019", "P1'", "NO MASS"))


def test_every_word_that_is_counted_is_explained() -> None:
    folders = (ROOT / "shared/mammofed_shared/report", ROOT / "site_client/mammofed_site")
    sources = [path.read_text(encoding="utf-8") for folder in folders for path in folder.glob("*.py")]
    counted = {word for text in sources for word in re.findall(r'counts\["(\w+)"\]', text)} | {"by_both", "by_study"}
    counted |= {"by_accession"} | {reason.value for reason in NoReport}
    counted |= {f"unmapped_{role}" for role in _WORDS} | {f"contradicting_{name}" for name in (*_ONE_VALUE, "labels")}
    document = (ROOT / "docs/reports.md").read_text(encoding="utf-8")
    rows = document[document.index("## What is counted") : document.index("## Measured")].splitlines()
    explained = {word for row in rows if row.startswith("| `") for word in re.findall(r"`(\w+)`", row.split(" | ")[0])}

    assert explained == counted
