"""The tables of a prepared data set, and reading them as exams.

    <prepared>/images/<patient>/<exam>/<image>.png     8-bit grey
    <prepared>/images.parquet                          IMAGE_COLUMNS, one row an image
    <prepared>/exams.parquet                           EXAM_COLUMNS, one row an exam
    <prepared>/refused.parquet                         REFUSED_COLUMNS, one row a refused file
    <prepared>/counts.json, preprocessing.json         data/prepared.py

Written by ``site-client preprocess``, described for users in docs/data.md.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mammofed_shared.data.prepared import read_preprocessing
from mammofed_shared.errors import DataError, RefusalCode
from mammofed_shared.exam import Exam, Image, Laterality, Report, Split, View

IMAGE_COLUMNS = pa.schema(
    [
        ("image", pa.string()),  # pseudonym of the SOP instance
        ("exam", pa.string()),  # pseudonym of the study
        ("patient", pa.string()),  # pseudonym of the patient
        ("laterality", pa.string()),  # L or R
        ("view", pa.string()),  # CC or MLO
        ("path", pa.string()),  # of the PNG, relative to the data set's folder
        ("vendor", pa.string()),  # manufacturer, from an allow-list, or "other"
        ("spacing_mm", pa.float64()),  # of a pixel after the resize, rows; null where unknown
        ("crop_top", pa.int32()),  # breast box in the stored image: first row,
        ("crop_left", pa.int32()),  # first column,
        ("crop_height", pa.int32()),  # rows,
        ("crop_width", pa.int32()),  # columns
        ("flipped", pa.bool_()),  # mirrored so that the chest wall is left
        ("flagged", pa.string()),  # reason words of suspicions that did not refuse it, joined by ";"
        ("file_number", pa.int64()),  # local number of the source file
    ]
)
EXAM_COLUMNS = pa.schema(
    [
        ("exam", pa.string()),
        ("patient", pa.string()),
        ("split", pa.string()),  # train, validation or test
        ("day", pa.int32()),  # days since the patient's first exam
        ("findings", pa.string()),  # null where there is no report
        ("impression", pa.string()),
        ("text_origin", pa.string()),  # report, attributes or null
        ("density", pa.string()),  # A–D or null
        ("labels", pa.string()),  # JSON: finding → 0 or 1
        ("attributes", pa.string()),  # JSON: list of structured findings, or null
    ]
)
REFUSED_COLUMNS = pa.schema(
    [("file_number", pa.int64()), ("reason", pa.string()), ("detail", pa.string()), ("is_error", pa.bool_())]
)


def read_exams(datasets: Iterable[tuple[str, Path]], preprocessing_digest: str | None = None) -> list[Exam]:
    """All exams of several prepared data sets, in the order of data set, then pseudonym.

    Args:
        datasets: name and prepared folder of each.
        preprocessing_digest: refuse a data set that was prepared with other settings.

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
        images: dict[str, list[Image]] = {}
        for row in pq.read_table(prepared / "images.parquet", schema=IMAGE_COLUMNS).to_pylist():
            image = Image(row["image"], Laterality(row["laterality"]), View(row["view"]), prepared / row["path"])
            images.setdefault(row["exam"], []).append(image)
        for row in pq.read_table(prepared / "exams.parquet", schema=EXAM_COLUMNS).to_pylist():
            found = sorted(images.get(row["exam"], ()), key=lambda image: image.image)
            exams.append(_exam(name, row, tuple(found)))
    return sorted(exams, key=lambda exam: (exam.dataset, exam.exam))


def _exam(dataset: str, row: dict[str, str | None], images: tuple[Image, ...]) -> Exam:
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
    )
