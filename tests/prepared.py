"""Prepared data sets of a few phantom exams, written straight to PNG and Parquet: no DICOM, ready in a second."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.config.site import DatasetSettings, PolicySettings, SiteSettings, SplitSettings, WorkerSettings
from mammofed_shared.data.columns import TABLES, check_rows, schema_of
from mammofed_shared.data.phantom import Population, phantom_exam
from mammofed_shared.data.phantom_outcome import phantom_outcome, phantom_teacher
from mammofed_shared.data.prepared import write_counts
from mammofed_shared.exam import Split
from mammofed_shared.report.templates import narrative_report

SMALL = PreprocessingSettings(height=64, width=40)
TEXT_ENCODER = Path(__file__).parent.parent / "configs/text_encoder/demo"
POPULATION = Population(mass_prevalence=0.5, calcification_prevalence=0.5)

GEOMETRY = {"rows": 190, "columns": 114, "crop_top": 0, "crop_left": 0, "crop_height": 190, "crop_width": 114} | {
    "flipped": False,
    "turned": False,
    "inverted": False,
}


def prepare_dataset(folder: Path, seed: int, num_training: int = 8, num_test: int = 6, num_validation: int = 0) -> None:
    """Write a prepared data set of phantom exams, one a patient, with reports, labels, outcomes and teacher's risks."""
    images, exams = [], []
    splits = ["train"] * num_training + ["test"] * num_test + ["validation"] * num_validation
    for number, split in enumerate(splits):
        found = phantom_exam(seed, number, POPULATION, shape=(190, 114))
        name = f"e{seed:03d}{number:04d}"
        for (laterality, view), pixels in found.images.items():
            left = pixels if laterality == "L" else pixels[:, ::-1]
            small = cv2.resize(np.ascontiguousarray(left), (SMALL.width, SMALL.height), interpolation=cv2.INTER_AREA)
            path = Path("images") / f"{name}-{laterality}{view}.png"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            encoded = cv2.imencode(".png", np.round(small * 255).astype(np.uint8))[1].tobytes()
            (folder / path).write_bytes(encoded)
            images.append(
                {
                    "image": f"{name}{laterality}{view}",
                    "exam": name,
                    "patient": name,
                    "laterality": str(laterality),
                    "view": str(view),
                    "path": str(path),
                    "file_number": len(images),
                }
                | GEOMETRY
                | {
                    "laterality_from": "image",
                    "view_from": "view_position",
                    "vendor": "other",
                    "intent": "presentation",
                    "window": "paper",
                    "flagged": "",
                    "grey": [0] * 16,
                    "png_sha256": hashlib.sha256(encoded).hexdigest(),
                }
            )
        outcome = phantom_outcome(seed, found)
        report = narrative_report(found.structured(), found.density, found.birads)
        exams.append(
            {
                "exam": name,
                "patient": name,
                "split": split,
                "day": 0,
                "findings": report.findings,
                "impression": report.impression,
                "text_origin": "report",
                "density": found.density,
                "num_words": len(f"{report.findings} {report.impression}".split()),
                "scrubbed": "",
                "years_to_cancer": outcome.years_to_cancer,
                "years_followed": outcome.years_followed,
                "teacher": phantom_teacher(seed, found),
                "labels": json.dumps({kind: int(found.has(kind)) for kind in ("mass", "calcification")}),
            }
        )
    for table, rows in (("images", images), ("exams", exams), ("refused", [])):
        found_rows = pa.RecordBatch.from_pylist(rows, schema=schema_of(TABLES[table]))
        check_rows(found_rows, TABLES[table])
        pq.write_table(pa.Table.from_batches([found_rows]), folder / f"{table}.parquet")
    write_counts(folder, Counter(map(Split, splits)))
    (folder / "preprocessing.json").write_text(SMALL.model_dump_json())


def site_settings(
    folder: Path, site: str, seed: int, *, server: str = "127.0.0.1:1", identity: Path | None = None
) -> SiteSettings:
    """A site with one prepared data set of its own below ``folder``."""
    prepare_dataset(folder / "datasets" / "screening", seed)
    return SiteSettings(
        site=site,
        consortium="hospitals",
        server=server,
        folder=folder,
        identity=identity or folder / "identity",
        datasets=(DatasetSettings(name="screening"),),
        split=SplitSettings(train=0.5, validation=0.0, test=0.5),
        preprocessing=SMALL,
        text_encoder=TEXT_ENCODER,
        worker=WorkerSettings(device="cpu", threads=1, preprocess_workers=1),
        policy=PolicySettings(least_cell=2),  # of six test exams there are no ten of either class
    )
