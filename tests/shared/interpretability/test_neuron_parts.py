"""An explanation of models that are planted: what drives the risk, where and in which words is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mammofed_shared.exam import Exam, Laterality, View
from mammofed_shared.interpretability.ablation import Reader
from mammofed_shared.interpretability.exam_maps import ExamMaps, exam_maps
from mammofed_shared.interpretability.neuron_parts import NeuronExplanation, explain_by_neurons
from mammofed_shared.interpretability.sentence import chosen
from mammofed_shared.models.mirai import MiraiHead
from planted import (
    MASS,
    PATCH,
    REPORT,
    TISSUE,
    PlantedEncoder,
    PlantedHead,
    PlantedTokenizer,
    planted_autoencoder,
    planted_exam,
)

CPU = torch.device("cpu")
HEAD: Any = PlantedHead()
PATCHES = {(Laterality.L, View.CC): (2, 1), (Laterality.L, View.MLO): (1, 2)}


@pytest.fixture
def reader() -> Reader:
    return Reader(PlantedEncoder(), PlantedTokenizer(), planted_autoencoder(), CPU)  # type: ignore[arg-type]


@pytest.fixture
def exam(tmp_path: Path) -> Exam:
    return planted_exam(tmp_path, PATCHES)


@pytest.fixture
def maps(reader: Reader, exam: Exam) -> ExamMaps:
    return exam_maps(reader.encoder.image_encoder, exam, CPU)


@pytest.fixture
def found(reader: Reader, exam: Exam, maps: ExamMaps) -> NeuronExplanation:
    return explain_by_neurons(reader, HEAD, maps, exam.report, year=1)


def test_the_planted_neuron_drives_the_risk(found: NeuronExplanation) -> None:
    first = found.parts[0]

    assert first.neuron == PATCH
    assert first.contribution > 0.1
    assert found.raising == (PATCH,), "tissue lowers this risk"
    assert next(part.contribution for part in found.parts if part.neuron == TISSUE) < 0


def test_contributions_sum_to_the_risk_above_that_of_an_empty_code(found: NeuronExplanation) -> None:
    total = sum(part.contribution for part in found.parts) + found.others

    assert total == pytest.approx(found.risks_of_code[0] - found.risk_of_empty, abs=1e-12)
    assert found.risks == pytest.approx(found.risks_of_code), "this code loses nothing"
    assert list(found.risks) == sorted(found.risks)


def test_the_heat_map_is_highest_on_the_patch_of_each_view(found: NeuronExplanation, maps: ExamMaps) -> None:
    for place, cell in PATCHES.items():
        of_view = found.heat[maps.views.index(place)]
        assert np.unravel_index(of_view.argmax(), of_view.shape) == cell
    for side_view in ((Laterality.R, View.CC), (Laterality.R, View.MLO)):
        assert found.heat[maps.views.index(side_view)].max() <= 0, "nothing raises the risk in the other breast"


def test_the_sentence_that_names_the_patch_is_chosen(found: NeuronExplanation) -> None:
    assert found.parts[0].sentences[0].sentence == MASS
    assert found.sentences[0].sentence == MASS
    assert found.sentences[0].share > 0.9
    tissue = next(part for part in found.parts if part.neuron == TISSUE)
    assert tissue.sentences[0].sentence == "The breasts are almost entirely fatty."


def test_an_exam_without_report_has_no_sentence_and_the_same_contributions(
    reader: Reader, maps: ExamMaps, found: NeuronExplanation
) -> None:
    silent = explain_by_neurons(reader, HEAD, maps, None, year=1)

    assert silent.sentences == ()
    assert all(part.sentences == () for part in silent.parts)
    assert [part.contribution for part in silent.parts] == [part.contribution for part in found.parts]


def test_neurons_that_are_not_shown_are_told_as_one_sum(reader: Reader, maps: ExamMaps) -> None:
    found = explain_by_neurons(reader, HEAD, maps, REPORT, year=3, num_neurons=1)

    assert [part.neuron for part in found.parts] == [PATCH]
    assert found.num_others == 2
    assert found.others == pytest.approx(
        found.risks_of_code[2] - found.risk_of_empty - found.parts[0].contribution, abs=1e-12
    )


def test_a_view_that_was_not_taken_takes_no_part(reader: Reader, tmp_path: Path) -> None:
    views = [(Laterality.L, View.CC), (Laterality.R, View.CC)]
    maps = exam_maps(reader.encoder.image_encoder, planted_exam(tmp_path, PATCHES, views), CPU)
    found = explain_by_neurons(reader, HEAD, maps, None, year=1)

    assert maps.views == tuple(views)
    assert found.heat.shape == (2, 4, 5)
    share = 1 / 20 * 1 / 2  # one patch of 20 cells in one of two views
    tissue = float(maps.maps[:, TISSUE].mean())
    assert found.risks[0] == pytest.approx(1 / (1 + np.exp(3 - 60 * share + tissue)))


def test_where_no_neuron_raises_the_risk_all_are_asked_for_their_sentence(reader: Reader, tmp_path: Path) -> None:
    maps = exam_maps(reader.encoder.image_encoder, planted_exam(tmp_path, {}), CPU)
    found = explain_by_neurons(reader, HEAD, maps, REPORT, year=1)

    assert TISSUE in found.raising
    assert all(part.contribution <= 0 for part in found.parts)


def test_contributions_of_the_real_head_sum_to_its_risk(reader: Reader, maps: ExamMaps) -> None:
    torch.manual_seed(2)
    head = MiraiHead(3, width=32, num_layers=1, num_heads=2).eval()
    found = explain_by_neurons(reader, head, maps, REPORT, year=5, num_neurons=2)

    total = sum(part.contribution for part in found.parts) + found.others
    assert total == pytest.approx(found.risks_of_code[4] - found.risk_of_empty, abs=1e-9)
    assert abs(found.parts[0].contribution) >= abs(found.parts[1].contribution) > 0


def test_an_exam_in_which_no_neuron_fires_has_the_risk_of_an_empty_code(reader: Reader, maps: ExamMaps) -> None:
    reader.autoencoder.encoder_bias.fill_(-100)
    found = explain_by_neurons(reader, HEAD, maps, REPORT, year=1)

    assert found.parts == ()
    assert (found.num_others, found.others) == (0, 0)
    assert found.risks_of_code[0] == pytest.approx(found.risk_of_empty)
    assert not found.heat.any()
    assert chosen(found.sentences) is None
