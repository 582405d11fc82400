"""What the hospitals hold and what left them, read from their own prepared data sets and audit records."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from mammofed_shared.config.site import DatasetSettings, SiteSettings
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.exam import Split
from mammofed_simulation.demo.results import FINDINGS, Departure, Population

_ORIGINS = {"report": "reports", "attributes": "sentences from attributes"}


def populations_of(site: SiteSettings) -> list[Population]:
    """One record a data set of the site."""
    return [_population(site, dataset) for dataset in site.datasets]


def _population(site: SiteSettings, dataset: DatasetSettings) -> Population:
    folder = site.prepared_folder(dataset)
    exams = read_exams([(dataset.name, folder)])
    images = pq.read_table(folder / "images.parquet", columns=["vendor"])
    origins = set(pq.read_table(folder / "exams.parquet", columns=["text_origin"])["text_origin"].to_pylist())
    known = {finding: [exam.labels[finding] for exam in exams if finding in exam.labels] for finding in FINDINGS}
    return Population(
        site=site.site,
        dataset=dataset.name,
        is_phantom=dataset.profile == "standard",
        vendors=tuple(sorted(set(images["vendor"].to_pylist()))),
        texts=", ".join(_ORIGINS[origin] for origin in sorted(origins - {None})) or "none",
        num_images=images.num_rows,
        num_refused=pq.read_metadata(folder / "refused.parquet").num_rows,
        num_train=sum(exam.split is Split.TRAIN and exam.report is not None for exam in exams),
        num_test=sum(exam.split is Split.TEST and bool(exam.labels) for exam in exams),
        prevalence={finding: sum(labels) / len(labels) for finding, labels in known.items() if labels},
        density=dict(sorted(Counter(exam.density for exam in exams if exam.density is not None).items())),
    )


def departure_of(site: str, folder: Path) -> Departure:
    """What left a site, after ``<folder>/audit.jsonl``."""
    events = [json.loads(line) for line in (folder / "audit.jsonl").read_text(encoding="utf-8").splitlines()]
    released = [event for event in events if event["event"] == "released"]
    visits = {event["task"]: event["size"] for event in released if event["task"].endswith("/train")}
    return Departure(
        site=site,
        num_visits=len(visits),
        num_evaluations=len({event["task"] for event in released if event["task"].endswith("/evaluate")}),
        num_bytes=sum(visits.values()),
        numbers=tuple(sorted({_number_name(event["task"], name) for event in released for name in event["metrics"]})),
        refused=sum(event["event"] == "refused" for event in events),
    )


def _number_name(task: str, name: str) -> str:
    """The name of a released number; the counts before the first turn have one for each table."""
    table, slash, _ = name.partition("/")
    return f"{table}/…" if slash and task.endswith("/query") else name
