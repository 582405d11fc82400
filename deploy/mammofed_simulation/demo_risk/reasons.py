"""Whether the reasons are right: the planted masses of held-out phantoms, looked for by the explanation and by chance.

An exam is one trial. The explanation points at the highest place of its heat map over all four views; it names the mass
if the sentence that it chose does. The raw encoder points at the place where it fires most.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TypeAlias

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mammofed_shared.config.base import Settings
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.exam import Exam, Laterality, Split, View
from mammofed_shared.interpretability.exam_maps import ExamMaps, Place, exam_maps
from mammofed_shared.interpretability.heat_map import activation_norm, up_sampled
from mammofed_shared.interpretability.neuron_parts import NeuronExplanation, explain_by_neurons
from mammofed_shared.interpretability.pointing import Box, pointing_hit, random_hit
from mammofed_shared.interpretability.sentence import chance_of_naming, chosen, names_finding, report_sentences
from mammofed_shared.pseudonyms import Pseudonyms
from mammofed_simulation.demo.examples import to_prepared
from mammofed_simulation.hospitals import DemoHospital
from mammofed_site.explanations.models import ExplainingModels
from mammofed_site.intake_journal import exams_of_accession

FINDING = "mass"
PERMUTATIONS = 20
"""Of each exam: a fifth of what `site-client explain` takes, for some hundred exams."""
YEAR = 5


BoxesOfExams: TypeAlias = dict[str, dict[Place, list[Box]]]
Maps: TypeAlias = NDArray[np.float32]


class Reasons(Settings):
    """Shares of the exams, 0..1: in the box of a mass is the highest point of the heat map, a random point of the
    breast, the highest point of the raw encoder; the mass is named by the chosen sentence, by a random one of the
    report."""

    num_exams: int
    pointing: float
    pointing_by_chance: float
    pointing_of_encoder: float
    num_reported: int
    naming: float
    naming_by_chance: float


@dataclass(frozen=True, slots=True)
class Planted:
    """A held-out exam that shows a mass, and the boxes of its masses in prepared images, chest wall left."""

    exam: Exam
    boxes: Mapping[Place, Sequence[Box]]


@dataclass(frozen=True, slots=True)
class _Trial:
    pointing: float
    by_chance: float
    of_encoder: float
    naming: float | None
    naming_by_chance: float


def planted_exams(settings: SiteSettings, hospital: DemoHospital) -> list[Planted]:
    """The site's held-out exams that show a mass, by the boxes that its export tells."""
    (export,) = hospital.datasets
    (dataset,) = settings.datasets
    prepared = settings.prepared_folder(dataset)
    boxes = _boxes(export.boxes, Pseudonyms(hospital.key), prepared, settings.preprocessing)
    exams = [exam for exam in read_exams([(dataset.name, prepared)]) if exam.split is Split.TEST]
    return [Planted(exam, boxes[exam.exam]) for exam in exams if exam.exam in boxes]


def judge(models: ExplainingModels, planted: Sequence[Planted], report: Callable[[int, int], None]) -> Reasons:
    """Explain every exam and count.

    Args:
        report: called after each exam with the number done and of all.
    """
    trials = []
    for done, item in enumerate(planted, 1):
        trials.append(_trial(models, item))
        report(done, len(planted))
    told = [trial for trial in trials if trial.naming is not None]
    return Reasons(
        num_exams=len(trials),
        pointing=fmean(trial.pointing for trial in trials),
        pointing_by_chance=fmean(trial.by_chance for trial in trials),
        pointing_of_encoder=fmean(trial.of_encoder for trial in trials),
        num_reported=len(told),
        naming=fmean(trial.naming or 0.0 for trial in told),
        naming_by_chance=fmean(trial.naming_by_chance for trial in told),
    )


def _trial(models: ExplainingModels, planted: Planted) -> _Trial:
    assert models.reader is not None and models.neurons is not None
    maps = exam_maps(models.image_encoder, planted.exam, models.device)
    why = explain_by_neurons(
        models.reader, models.neurons.head, maps, planted.exam.report, year=YEAR, permutations=PERMUTATIONS
    )
    boxes = [planted.boxes.get(place, ()) for place in maps.views]
    breast_VHW = maps.greys > 0
    sentences = report_sentences(planted.exam.report)
    return _Trial(
        pointing_hit(_enlarged(why.heat, maps), boxes, breast_VHW),
        random_hit(boxes, breast_VHW),
        pointing_hit(_enlarged(activation_norm(maps.maps.cpu().numpy()), maps), boxes, breast_VHW),
        _names(why) if sentences else None,
        chance_of_naming(sentences, FINDING),
    )


def _enlarged(maps_Vhw: Maps, maps: ExamMaps) -> Maps:
    return np.stack([up_sampled(map_hw, maps.image_size) for map_hw in maps_Vhw])


def _names(why: NeuronExplanation) -> float:
    sentence = chosen(why.sentences)
    return float(sentence is not None and names_finding(sentence.sentence, FINDING))


def _boxes(path: Path | None, names: Pseudonyms, prepared: Path, size: PreprocessingSettings) -> BoxesOfExams:
    """Boxes of masses by the exam's pseudonym, moved into prepared images as the intake cropped and turned them."""
    assert path is not None, "phantom exports have boxes"
    images = {
        (row["exam"], row["laterality"], row["view"]): row
        for row in pq.read_table(prepared / "images.parquet").to_pylist()
    }
    found: BoxesOfExams = {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["finding"] == FINDING]
    for row in rows:
        for exam in exams_of_accession(prepared, names.of("accession", row["accession"])):
            place = (Laterality(row["laterality"]), View(row["view"]))
            moved = to_prepared(row, images[exam, row["laterality"], row["view"]], size)
            box = Box(moved.top, moved.left, moved.top + moved.height, moved.left + moved.width)
            found.setdefault(exam, {}).setdefault(place, []).append(box)
    return found
