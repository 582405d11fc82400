"""Reading a prepared data set as exams.

    <prepared>/images/<patient>/<exam>/<image>.png     8-bit grey
    <prepared>/images.parquet                          one row an image; the columns of all three: data/columns.py
    <prepared>/exams.parquet                           one row an exam
    <prepared>/refused.parquet                         one row a refused file
    <prepared>/counts.json, preprocessing.json         data/prepared.py

Written by ``site-client preprocess``, described for users in docs/data.md.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mammofed_shared.data.prepared import read_preprocessing
from mammofed_shared.dicom.reasons import Reason
from mammofed_shared.errors import DataError, RefusalCode
from mammofed_shared.exam import Exam, Image, Laterality, Report, Split, View
from mammofed_shared.report.templates import structured_findings

Row = dict[str, Any]

_IMAGE_COLUMNS = ("image", "exam", "laterality", "view", "path", "flagged", "vendor", "png_sha256")
_EXAM_COLUMNS = (
    *("exam", "patient", "split", "findings", "impression", "text_origin"),
    *("density", "birads", "labels", "attributes"),
    *("age_band", "years_to_cancer", "years_followed", "teacher"),
)


def read_exams(
    datasets: Iterable[tuple[str, Path]], preprocessing_digest: str | None = None, *, only: str | None = None
) -> list[Exam]:
    """All exams of several prepared data sets, in the order of data set, then pseudonym.

    Args:
        datasets: name and prepared folder of each.
        preprocessing_digest: refuse a data set that was prepared with other settings.
        only: pseudonym of an exam; all others are left out.

    Raises:
        DataError: a data set is not prepared, or prepared otherwise.
    """
    exams: list[Exam] = []
    for name, prepared in datasets:
        settings = read_preprocessing(prepared)
        if preprocessing_digest is not None and settings.digest != preprocessing_digest:
            raise DataError(
                f"data set {name} was prepared with other settings than the run asks for: make `preprocessing` in the "
                "site's YAML equal to the run's and run `site-client preprocess` again",
                RefusalCode.PREPROCESSING_MISMATCH,
            )
        images: dict[str, list[Row]] = {}
        for row in _rows(prepared, "images", _IMAGE_COLUMNS, only):
            images.setdefault(row["exam"], []).append(row)
        for row in _rows(prepared, "exams", _EXAM_COLUMNS, only):
            found = _images(prepared, images.get(row["exam"], []), Split(row["split"]))
            if found:
                exams.append(_exam(name, row, found))
    return sorted(exams, key=lambda exam: (exam.dataset, exam.exam))


def _rows(prepared: Path, table: str, columns: tuple[str, ...], only: str | None) -> Iterator[Row]:
    try:
        with pq.ParquetFile(prepared / f"{table}.parquet") as file:
            for batch in file.iter_batches(columns=list(columns)):
                if batch.num_columns != len(columns):
                    raise DataError("a data set was prepared by another version: run `site-client preprocess` again")
                wanted = batch if only is None else batch.filter(pc.equal(batch["exam"], only))
                yield from wanted.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError("a table of a data set cannot be read: run `site-client preprocess` again") from error


def _images(prepared: Path, rows: list[Row], split: Split) -> tuple[Image, ...]:
    """The images of an exam by name. Outside training none whose pixels another patient has too: it may train on
    them."""
    return tuple(
        Image(
            image=row["image"],
            laterality=Laterality(row["laterality"]),
            view=View(row["view"]),
            path=prepared / row["path"],
            vendor=sys.intern(row["vendor"]),
            png_sha256=row["png_sha256"],
        )
        for row in sorted(rows, key=lambda row: str(row["image"]))
        if split is Split.TRAIN or Reason.SHARED_PIXELS not in row["flagged"].split(";")
    )


def _exam(dataset: str, row: Row, images: tuple[Image, ...]) -> Exam:
    has_text = row["findings"] is not None or row["impression"] is not None
    return Exam(
        exam=str(row["exam"]),
        patient=str(row["patient"]),
        dataset=dataset,
        split=Split(str(row["split"])),
        report=Report(row["findings"] or "", row["impression"] or "") if has_text else None,
        images=images,
        labels={name: bool(value) for name, value in json.loads(row["labels"] or "{}").items()},
        density=row["density"],
        birads=row["birads"],
        attributes=_attributes(row["attributes"]) if row["text_origin"] == "attributes" else None,
        years_to_cancer=row["years_to_cancer"],
        years_followed=row["years_followed"],
        teacher=None if row["teacher"] is None else tuple(row["teacher"]),
        age_band=row["age_band"],
    )


@lru_cache(4096)
def _attributes(stored: str) -> tuple[Mapping[str, str], ...]:
    """The structured findings of a cell, checked; equal cells give one object, because most exams record the same."""
    try:
        attributes = tuple(json.loads(stored))
        structured_findings(attributes)
    except (DataError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            "attributes of an exam: expected the words of this version. Run `site-client preprocess` again"
        ) from error
    return attributes
