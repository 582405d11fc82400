from pathlib import Path

import pytest

from mammofed_shared.errors import DataError
from mammofed_shared.exam import Report
from mammofed_shared.report.tables import Labels, read_attributes, read_labels, read_reports


def key(kind: str, value: str) -> str:
    return f"{kind}#{value}"


def csv_file(folder: Path, *lines: str) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


def test_reports_come_as_one_text_or_as_two_columns(tmp_path: Path) -> None:
    one = csv_file(tmp_path, "Accession,Report", '7,"FINDINGS: a. IMPRESSION: b."', ",orphan")
    assert read_reports(one, key) == {"accession#7": Report("a.", "b.")}
    two = csv_file(tmp_path, "study_uid,findings,impression", "1.2,a.,b.")
    assert read_reports(two, key) == {"study#1.2": Report("a.", "b.")}


def test_attributes_keep_only_what_is_given(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path, "accession,finding,value,subtype,laterality", "7,Mass,positive,,Left", "7,calcification,negative,,"
    )
    assert read_attributes(path, key) == {
        "accession#7": [
            {"finding": "mass", "value": "positive", "laterality": "left"},
            {"finding": "calcification", "value": "negative"},
        ]
    }


def test_an_empty_label_means_that_nobody_knows(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "study_uid,accession,mass,calcification,density", "1.2,7,1,,b", "1.3,8,0,1,")
    assert read_labels(path, key) == {
        "accession#7": Labels({"mass": True}, "B"),
        "accession#8": Labels({"mass": False, "calcification": True}, None),
    }


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["patient,mass", "Jane Roe,1"], "accession or study_uid"),
        (["accession,mass", "7,maybe Jane Roe"], "column mass"),
        (["accession,density", "7,Jane Roe"], "column density"),
    ],
)
def test_wrong_labels_are_refused_without_quoting_them(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said) as refused:
        read_labels(csv_file(tmp_path, *lines), key)
    assert "Jane" not in str(refused.value)


def test_attributes_without_a_known_value_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="positive or negative"):
        read_attributes(csv_file(tmp_path, "accession,finding,value", "7,mass,perhaps"), key)


def test_reports_without_a_text_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="report or findings or impression"):
        read_reports(csv_file(tmp_path, "accession,text", "7,x"), key)


def test_a_missing_csv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_reports(tmp_path / "none.csv", key)
