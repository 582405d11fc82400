"""Example images for the page: prepared images as the model sees them, with the phantoms' boxes.

Which exam a box belongs to is known by the accession number, at the hospital only; the demo, which owns the hospitals
and their pseudonym keys, may join the two.
"""

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pydicom

from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.config.site import DatasetSettings, SiteSettings
from mammofed_shared.exam import Split
from mammofed_shared.pseudonyms import Pseudonyms
from mammofed_simulation.hospitals import DemoDataset

_NUM_REAL = 2


@dataclass(frozen=True, slots=True)
class Box:
    """Where a finding is, in pixels of the prepared image."""

    finding: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class ExampleImage:
    """One prepared image; ``label`` is side and view, such as ``L CC``."""

    label: str
    png: bytes
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """Images that are shown together, and what is said of them."""

    title: str
    caption: str
    is_phantom: bool
    images: tuple[ExampleImage, ...]


def phantom_example(site: SiteSettings, export: DemoDataset, key: bytes) -> Example:
    """The held-out exam of a hospital that shows the most kinds of findings; of equals, the first."""
    settings = next(dataset for dataset in site.datasets if dataset.name == export.name)
    prepared = site.prepared_folder(settings)
    columns = ["exam", "split"]
    exams = pq.read_table(prepared / "exams.parquet", columns=columns).to_pylist()
    held_out = {row["exam"] for row in exams if row["split"] == Split.TEST.value}
    assert export.boxes is not None, "phantom exports have boxes"
    boxes = _read_boxes(export.boxes)
    names = Pseudonyms(key)
    # Most kinds of findings first; sorting is stable, so accession numbers stay in order.
    for rows in sorted(boxes.values(), key=lambda rows: -len({row["finding"] for row in rows})):
        exam = names.of("study", _study_uid(export.dicom, rows[0]["accession"]))
        if exam in held_out:
            images = [
                _with_boxes(row, prepared, site.preprocessing, rows)
                for row in _image_rows(prepared)
                if row["exam"] == exam
            ]
            found = " and ".join(sorted({f"a {row['finding']}" for row in rows}))
            caption = f"A held-out phantom exam with {found}."
            return Example(site.site, caption, True, tuple(sorted(images, key=lambda image: image.label)))
    return Example(site.site, "No held-out exam shows a finding.", True, ())


def real_example(site: SiteSettings, dataset: DatasetSettings) -> Example:
    """Two real mammograms of CBIS-DDSM: prepared by the same command, never trained on."""
    prepared = site.prepared_folder(dataset)
    rows = sorted(_image_rows(prepared), key=lambda row: str(row["path"]))
    sides = defaultdict(list)
    for row in rows:
        sides[row["exam"], row["laterality"]].append(row)
    pair = max(sides.values(), key=len, default=[])[:_NUM_REAL]
    images = tuple(ExampleImage(_label(row), (prepared / row["path"]).read_bytes()) for row in pair)
    caption = "Real mammograms from CBIS-DDSM (Lee et al., 2017; CC BY 3.0), read and prepared, not trained on."
    return Example(f"{site.site}, second data set", caption, False, images)


def _read_boxes(path: Path) -> dict[str, list[dict[str, str]]]:
    boxes: dict[str, list[dict[str, str]]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            boxes[row["accession"]].append(row)
    return boxes


def _study_uid(dicom: Path, accession: str) -> str:
    file = next(dicom.glob(f"*/{accession}/*"))
    return str(pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)


def _image_rows(prepared: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(prepared / "images.parquet").to_pylist())


def _label(row: dict[str, Any]) -> str:
    return f"{row['laterality']} {row['view']}"


def _with_boxes(
    row: dict[str, Any], prepared: Path, size: PreprocessingSettings, rows: Sequence[dict[str, str]]
) -> ExampleImage:
    own = [box for box in rows if (box["laterality"], box["view"]) == (row["laterality"], row["view"])]
    boxes = tuple(to_prepared(box, row, size) for box in own)
    return ExampleImage(_label(row), (prepared / row["path"]).read_bytes(), boxes)


def to_prepared(box: dict[str, str], row: dict[str, Any], size: PreprocessingSettings) -> Box:
    """A box of the stored DICOM image in pixels of the prepared one: cropped, resized, perhaps mirrored.

    Args:
        box: ``finding``, ``top``, ``left``, ``height``, ``width``.
        row: of images.parquet: the crop in the stored image, and whether the prepared one is mirrored.
    """
    across, down = size.width / row["crop_width"], size.height / row["crop_height"]
    width, height = int(box["width"]) * across, int(box["height"]) * down
    left = (int(box["left"]) - row["crop_left"]) * across
    top = (int(box["top"]) - row["crop_top"]) * down
    return Box(box["finding"], size.width - left - width if row["flipped"] else left, top, width, height)
