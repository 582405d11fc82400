"""From the results of single files to the tables of a prepared data set (schemas: ``data/manifest.py``)."""

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mammofed_shared.config.site import SplitSettings
from mammofed_shared.data.manifest import EXAM_COLUMNS, IMAGE_COLUMNS, REFUSED_COLUMNS
from mammofed_shared.dicom.deidentify import Pseudonyms
from mammofed_shared.dicom.preprocess import Prepared, Refusal
from mammofed_shared.dicom.reasons import BY_WORD, Kind, Reason
from mammofed_shared.exam import Report, Split
from mammofed_shared.report.tables import Labels
from mammofed_shared.report.templates import sentences_from_attributes

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Texts:
    """What the hospital's CSV files say, by pseudonym of the study or of the accession number."""

    reports: Mapping[str, Report] = field(default_factory=dict)
    attributes: Mapping[str, list[dict[str, str]]] = field(default_factory=dict)
    labels: Mapping[str, Labels] = field(default_factory=dict)


def without_duplicates(
    outcomes: Mapping[int, Prepared | Refusal],
) -> tuple[dict[int, Prepared], dict[int, Refusal]]:
    """Accepted images and refusals by file number, each image once.

    Of files with one instance UID, or one patient's equal pixels, the lowest number is kept. Files that share a UID but
    not their pixels are all refused, and so are exams that claim two patients: nobody knows which of them is right.
    """
    accepted = {number: item for number, item in sorted(outcomes.items()) if isinstance(item, Prepared)}
    refused = {number: item for number, item in outcomes.items() if isinstance(item, Refusal)}
    contents: dict[str, set[str]] = {}
    patients: dict[str, set[str]] = {}
    for item in accepted.values():
        contents.setdefault(item.image, set()).add(item.png_sha256)
        patients.setdefault(item.exam, set()).add(item.patient)
    seen: set[tuple[str, str]] = set()
    for number, item in list(accepted.items()):
        same_instance, same_pixels = ("", item.image), (item.patient, item.png_sha256)
        reason = None
        if len(contents[item.image]) > 1:
            reason = Reason.DUPLICATE_CONFLICT
        elif len(patients[item.exam]) > 1:
            reason = Reason.CONTRADICTING_TAGS
        elif {same_instance, same_pixels} & seen:
            reason = Reason.DUPLICATE
        if reason is not None:
            refused[number] = Refusal(reason, reason.sentence)
            del accepted[number]
        else:
            seen |= {same_instance, same_pixels}
    return accepted, refused


def image_rows(accepted: Mapping[int, Prepared]) -> list[Row]:
    """Rows of images.parquet in the order of file numbers."""
    names = set(IMAGE_COLUMNS.names) - {"file_number"}
    return [
        {name: value for name, value in asdict(item).items() if name in names} | {"file_number": number}
        for number, item in sorted(accepted.items())
    ]


def refused_rows(refused: Mapping[int, Refusal]) -> list[Row]:
    """Rows of refused.parquet in the order of file numbers."""
    return [
        {
            "file_number": number,
            "reason": item.reason,
            "detail": item.detail or BY_WORD[item.reason].sentence,
            "is_error": BY_WORD[item.reason].kind is Kind.ERROR,
        }
        for number, item in sorted(refused.items())
    ]


def exam_rows(accepted: Iterable[Prepared], texts: Texts, split: SplitSettings, names: Pseudonyms) -> list[Row]:
    """Rows of exams.parquet in the order of pseudonyms: split, day, text and labels of every exam that has an image."""
    exams: dict[str, list[Prepared]] = {}
    first_day: dict[str, int] = {}
    for item in accepted:
        exams.setdefault(item.exam, []).append(item)
        if item.shifted_day is not None:
            first_day[item.patient] = min(item.shifted_day, first_day.get(item.patient, item.shifted_day))
    rows = []
    for exam, images in sorted(exams.items()):
        patient = images[0].patient
        days = [image.shifted_day for image in images if image.shifted_day is not None]
        keys = [exam, *sorted({image.accession for image in images} - {""})]
        row: Row = {"exam": exam, "patient": patient, "split": split_of(patient, split, names).value}
        row |= {"day": min(days) - first_day[patient] if days else None}
        rows.append(row | _text_of(exam, keys, texts))
    return rows


def split_of(patient: str, split: SplitSettings, names: Pseudonyms) -> Split:
    """The part to which a patient belongs for good, whatever else the data set holds."""
    share = names.share(patient)
    if share < split.train:
        return Split.TRAIN
    return Split.VALIDATION if share < split.train + split.validation else Split.TEST


def parquet(rows: Sequence[Row], schema: pa.Schema) -> bytes:
    """A table as a Parquet file; equal rows give equal bytes."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), sink)
    return sink.getvalue()


def tables(images: Sequence[Row], exams: Sequence[Row], refused: Sequence[Row]) -> dict[str, bytes]:
    """The three table files by name."""
    return {
        "images.parquet": parquet(images, IMAGE_COLUMNS),
        "exams.parquet": parquet(exams, EXAM_COLUMNS),
        "refused.parquet": parquet(refused, REFUSED_COLUMNS),
    }


def counts_by_reason(refused: Iterable[Refusal]) -> dict[str, int]:
    """How many files each reason has refused, the most frequent first."""
    return dict(Counter(item.reason for item in refused).most_common())


def _text_of(exam: str, keys: Sequence[str], texts: Texts) -> Row:
    labels = next((texts.labels[key] for key in keys if key in texts.labels), Labels())
    report = next((texts.reports[key] for key in keys if key in texts.reports), None)
    attributes = next((texts.attributes[key] for key in keys if key in texts.attributes), None)
    origin = "report" if report is not None else "attributes" if attributes is not None else None
    if report is None and attributes is not None:
        # The seed is the exam's own, so a sentence never changes with what else is in the data set.
        report = sentences_from_attributes(attributes, density=labels.density, seed=int(exam[:8], 16))
    return {
        "findings": None if report is None else report.findings,
        "impression": None if report is None else report.impression,
        "text_origin": origin,
        "density": labels.density,
        "labels": json.dumps({name: int(value) for name, value in sorted(labels.findings.items())}),
        "attributes": None if attributes is None else json.dumps(attributes),
    }
