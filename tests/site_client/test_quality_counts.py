"""Exact counts of prepared tables; and words of a table that are not on the list, which never leave."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mammofed_shared.errors import DataError, RefusalCode
from mammofed_site.disclosure import COUNTED_FILE, Cell, Counts
from mammofed_site.quality_counts import count_prepared, write_quality_counts

CANARY = "MRN-4711-DOE"
IMAGE = {
    "patient": "p0",
    "vendor": "hologic",
    "view": "CC",
    "intent": "presentation",
    "window": "paper",
    "path": "x.png",
}


def _prepared(folder: Path, images: list[dict[str, Any]], exams: list[dict[str, Any]]) -> tuple[str, Path]:
    """A data set with those columns of its tables that are counted, and one more."""
    folder.mkdir(parents=True)
    for name, rows in (("images", images), ("exams", exams)):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder.name, folder


def _exam(patient: str, density: str | None = "B") -> dict[str, Any]:
    return {"patient": patient, "density": density, "findings": CANARY}


def _filled(counts: Counts, by: str) -> dict[str, tuple[int, int]]:
    cells = counts.tables[by]
    return {word: (cell.num, cell.num_patients) for word, cell in cells.items() if cell != Cell()}


def test_images_and_exams_are_counted_with_the_patients_behind_them(tmp_path: Path) -> None:
    images = [
        IMAGE,
        {**IMAGE, "view": "MLO"},
        {**IMAGE, "patient": "p1", "vendor": "ge", "window": "voi", "intent": "unsaid"},
    ]
    dataset = _prepared(tmp_path / "screening", images, [_exam("p0"), _exam("p0", None), _exam("p1", "A")])
    counts = count_prepared([dataset])
    assert (counts.num_images, counts.num_exams, counts.num_patients) == (3, 3, 2)
    assert _filled(counts, "vendor") == {"hologic": (2, 1), "ge": (1, 1)}
    assert _filled(counts, "view") == {"cc": (2, 2), "mlo": (1, 1)}
    assert _filled(counts, "intent") == {"presentation": (2, 1), "unsaid": (1, 1)}
    assert _filled(counts, "preset") == {"paper": (2, 1), "voi": (1, 1)}
    assert _filled(counts, "density") == {"a": (1, 1), "b": (1, 1), "unknown": (1, 1)}


def test_a_patient_of_two_data_sets_is_one(tmp_path: Path) -> None:
    both = [_prepared(tmp_path / name, [IMAGE], [_exam("p0")]) for name in ("screening", "diagnostic")]
    counts = count_prepared(both)
    assert (counts.num_images, counts.num_exams, counts.num_patients) == (2, 2, 1)
    assert _filled(counts, "vendor") == {"hologic": (2, 1)}


def test_the_digest_is_of_what_was_counted_whatever_the_order(tmp_path: Path) -> None:
    images = [IMAGE, {**IMAGE, "patient": "p1", "vendor": "ge"}]
    exams = [_exam("p0"), _exam("p1")]
    first = count_prepared([_prepared(tmp_path / "a", images, exams)])
    assert count_prepared([_prepared(tmp_path / "b", images[::-1], exams[::-1])]).digest == first.digest
    assert count_prepared([_prepared(tmp_path / "c", [*images, IMAGE], exams)]).digest != first.digest


@pytest.mark.parametrize("column", ["vendor", "view", "intent", "window"])
@pytest.mark.parametrize("word", [CANARY, None, ""])
def test_a_word_that_is_not_on_the_list_refuses_the_tables_and_is_not_repeated(
    tmp_path: Path, column: str, word: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    dataset = _prepared(tmp_path / "screening", [IMAGE, {**IMAGE, column: word}], [_exam("p0")])
    with pytest.raises(DataError) as caught:
        write_quality_counts([dataset], tmp_path)
    assert caught.value.code is RefusalCode.PREPROCESSING_MISMATCH
    assert f"column {column}" in str(caught.value) and "run `site-client preprocess` again" in str(caught.value)
    assert CANARY not in str(caught.value) + caplog.text
    assert not (tmp_path / COUNTED_FILE).exists()


def test_a_density_that_is_not_on_the_list_refuses_the_tables(tmp_path: Path) -> None:
    dataset = _prepared(tmp_path / "screening", [IMAGE], [_exam("p0", CANARY)])
    with pytest.raises(DataError, match="column density"):
        count_prepared([dataset])


def test_tables_of_another_version_are_refused_by_data_set_and_table(tmp_path: Path) -> None:
    old = {name: value for name, value in IMAGE.items() if name != "window"}
    with pytest.raises(
        DataError, match=r"data set screening: images\.parquet: .*run `site-client preprocess`"
    ) as caught:
        count_prepared([_prepared(tmp_path / "screening", [old], [_exam("p0")])])
    assert caught.value.code is RefusalCode.PREPROCESSING_MISMATCH


def test_no_table_and_no_image_are_no_data(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="data set nothing") as caught:
        count_prepared([("nothing", tmp_path / "nothing")])
    assert caught.value.code is RefusalCode.NO_DATA
    name, folder = _prepared(tmp_path / "empty", [IMAGE], [_exam("p0")])
    for table in ("images", "exams"):
        path = folder / f"{table}.parquet"
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(DataError, match="hold no image") as caught:
        count_prepared([(name, folder)])
    assert caught.value.code is RefusalCode.NO_DATA


def test_exact_counts_stay_readable_by_their_owner_alone(tmp_path: Path) -> None:
    dataset = _prepared(tmp_path / "screening", [IMAGE], [_exam("p0")])
    write_quality_counts([dataset], tmp_path)
    written = tmp_path / COUNTED_FILE
    assert Counts.model_validate_json(written.read_text()) == count_prepared([dataset])
    assert written.stat().st_mode & 0o777 == 0o600
    assert CANARY not in written.read_text()
