"""What a prepared data set's tables become when they are read as exams."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mammofed_shared.data.columns import EXAMS, schema_of
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.errors import DataError
from prepared import prepare_dataset

ATTRIBUTES = [{"finding": "mass", "value": "positive", "laterality": "left"}]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    prepare_dataset(tmp_path, seed=1, num_training=4, num_test=0)
    return tmp_path


def change_exams(prepared: Path, changes: dict[int, dict[str, object]]) -> None:
    rows = pq.read_table(prepared / "exams.parquet").to_pylist()
    for number, change in changes.items():
        rows[number] |= change
    pq.write_table(pa.Table.from_pylist(rows, schema=schema_of(EXAMS)), prepared / "exams.parquet")


def test_an_exam_whose_text_was_made_carries_its_attributes(prepared: Path) -> None:
    made = {"text_origin": "attributes", "attributes": json.dumps(ATTRIBUTES), "birads": 0}
    change_exams(prepared, {0: made, 1: made, 2: {"attributes": json.dumps(ATTRIBUTES), "birads": 2}})

    exams = read_exams([("one", prepared)])

    assert [exam.attributes for exam in exams] == [tuple(ATTRIBUTES), tuple(ATTRIBUTES), None, None]
    assert exams[0].attributes is exams[1].attributes, "equal ones are held once"
    assert [exam.birads for exam in exams] == [0, 0, 2, None]


@pytest.mark.parametrize(
    "stored", [None, "{", "[1]", "[{}]", '[{"finding": "cyst", "value": "positive"}]', '[{"finding": "mass"}]']
)
def test_attributes_that_this_version_does_not_know_are_refused(prepared: Path, stored: str | None) -> None:
    change_exams(prepared, {0: {"text_origin": "attributes", "attributes": stored}})

    with pytest.raises(DataError, match="site-client preprocess") as caught:
        read_exams([("one", prepared)])

    assert "cyst" not in str(caught.value)


def test_outcomes_teacher_age_vendor_and_digest_are_read(prepared: Path) -> None:
    risks = [0.125, 0.25, 0.375, 0.5, 0.625]
    told = {"years_to_cancer": 3, "years_followed": 2, "teacher": risks, "age_band": "50-59"}
    change_exams(prepared, {0: told, 1: dict.fromkeys(told)})

    first, second, *_ = read_exams([("one", prepared)])

    assert (first.years_to_cancer, first.years_followed, first.teacher) == (3, 2, tuple(risks))
    assert first.age_band == "50-59"
    assert (second.years_to_cancer, second.years_followed, second.teacher, second.age_band) == (None,) * 4
    for image in first.images:
        assert image.vendor == "other"
        assert image.png_sha256 == hashlib.sha256(image.path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("table", "column"), [("exams", "age_band"), ("images", "png_sha256")])
def test_a_table_of_an_older_version_is_refused_with_what_to_do(prepared: Path, table: str, column: str) -> None:
    path = prepared / f"{table}.parquet"
    pq.write_table(pq.read_table(path).drop_columns(column), path)

    with pytest.raises(DataError, match="prepared by another version: run `site-client preprocess` again"):
        read_exams([("one", prepared)])


def test_one_exam_is_read_without_the_others(prepared: Path) -> None:
    exams = read_exams([("one", prepared)])

    assert read_exams([("one", prepared)], only=exams[2].exam) == [exams[2]]
    assert read_exams([("one", prepared)], only="another") == []
