"""Risks of exams, and what of them may be told: by data set and year, of enough patients."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from frozen_encoders import write_frozen_encoder
from mammofed_shared.config.frozen_encoder import read_encoder
from mammofed_shared.config.risk import RiskMiraiSettings
from mammofed_shared.config.risk_metrics import YEARS
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.data.risk import censored_labels
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.evaluation.statistics import auroc
from mammofed_shared.exam import Exam, Split
from mammofed_shared.training.feature_pass import ensure_features
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.risk_evaluation import evaluate, validate
from mammofed_shared.training.risk_model import RiskModel, build_model
from mammofed_shared.training.risk_scores import feature_exams, readable_exams, score_exams, scored_exams
from mammofed_shared.training.site_data import SiteData
from prepared import SMALL, prepare_dataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SiteData:
    folder = tmp_path_factory.mktemp("site")
    for number, name in enumerate(("one", "two")):
        prepare_dataset(folder / name, seed=7 + number, num_training=2, num_test=6, num_validation=8)
    found = SiteData(
        read_exams([(name, folder / name) for name in ("one", "two")]),
        ("one", "two"),
        None,
        least_cell=2,
        caches=folder / "caches",
        encoder=write_frozen_encoder(folder),
        preprocessing=SMALL.digest,
    )
    ensure_features(settings_of(found).features, found, WorkerGroup(Hardware(threads=1)), lambda done, total: None)
    return found


def settings_of(data: SiteData) -> RiskMiraiSettings:
    width = read_encoder(data.encoder_folder).num_features
    return RiskMiraiSettings(encoder_features=width, width=16, num_layers=1, num_heads=2, batch_size=5)


@pytest.fixture
def settings(data: SiteData) -> RiskMiraiSettings:
    return settings_of(data)


@pytest.fixture
def model(settings: RiskMiraiSettings) -> RiskModel:
    torch.manual_seed(1)
    return build_model(settings, None, False).train()


def _silent(done: int, total: int) -> None:
    """Nobody watches."""


def _of(data: SiteData, split: Split, dataset: str) -> list[Exam]:
    return [exam for exam in data.exams if exam.split is split and exam.dataset == dataset]


def test_a_risk_belongs_to_its_exam_whatever_stands_beside_it(
    settings: RiskMiraiSettings, model: RiskModel, data: SiteData
) -> None:
    risks = score_exams(settings, model, data, data.exams, CPU)
    turned = score_exams(settings, model, data, data.exams[::-1], CPU)

    assert risks.shape == (len(data.exams), len(YEARS))
    np.testing.assert_allclose(turned[::-1], risks, rtol=1e-5)
    assert ((risks > 0) & (risks < 1)).all() and (np.diff(risks, axis=1) >= 0).all()
    assert len(np.unique(risks[:, 0])) == len(data.exams)


def test_scoring_leaves_the_model_as_it_came(settings: RiskMiraiSettings, model: RiskModel, data: SiteData) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()

    validate(settings, model, data, CPU)

    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training and torch.equal(torch.get_rng_state(), state)


def test_validation_tells_of_each_data_set_and_year(
    settings: RiskMiraiSettings, model: RiskModel, data: SiteData
) -> None:
    numbers = validate(settings, model, data, CPU)

    told = 0
    for dataset, number in (("one", "d1"), ("two", "d2")):
        exams = _of(data, Split.VALIDATION, dataset)
        risks = score_exams(settings, model, data, exams, CPU)
        for year, name in enumerate(YEARS):
            labels = [censored_labels(exam) for exam in exams]
            known = [index for index, (_, is_known) in enumerate(labels) if is_known[year]]
            truth = [bool(labels[index][0][year]) for index in known]
            if f"auroc/{name}/{number}" not in numbers:  # too few, or by too few others than another year
                assert not [key for key in numbers if key.endswith(f"{name}/{number}")]
                continue
            assert min(sum(truth), len(truth) - sum(truth)) >= data.least_cell
            told += 1
            assert numbers[f"auroc/{name}/{number}"] == auroc(truth, risks[known, year].tolist())
            assert numbers[f"num_labelled/{name}/{number}"] == len(known)
            assert numbers[f"num_positive/{name}/{number}"] == sum(truth)
    assert told >= 3
    assert validate(settings, model, replace(data, least_cell=9), CPU) == {}
    assert validate(settings.model_copy(update={"validation_exams": 0}), model, data, CPU) == {}


def test_scores_of_single_exams_stay_beside_the_numbers(
    settings: RiskMiraiSettings, model: RiskModel, data: SiteData
) -> None:
    found = evaluate(settings, model, data, CPU, _silent)

    exams = [exam for exam in data.exams if exam.split is Split.TEST]
    assert found.numbers["num_exams"] == 12 and any(name.startswith("auroc/year") for name in found.numbers)
    risks = score_exams(settings, model, data, exams, CPU)
    assert [(row.exam.exam, row.score) for row in found.scores if row.finding == "year2"] == [
        (exam.exam, risk) for exam, risk in zip(exams, risks[:, 1].tolist(), strict=True)
    ]
    unknown = {row.exam.exam for row in found.scores if row.finding == "year5" and row.label is None}
    assert unknown == {exam.exam for exam in exams if not censored_labels(exam)[1][4]}


def test_only_exams_that_can_be_compared_are_scored(settings: RiskMiraiSettings, data: SiteData) -> None:
    bare = {"teacher": None, "years_to_cancer": None, "years_followed": None, "labels": {}}
    first, second, third, *rest = [replace(exam, **bare) for exam in _of(data, Split.TEST, "one")]  # type: ignore[arg-type]
    exams = [first, replace(second, labels={"cancer": True}), replace(third, years_followed=1), *rest]

    assert scored_exams(settings, exams, Split.TEST) == [exams[1], exams[2]]
    assert len(feature_exams(settings, data.exams)) == len(data.exams)
    assert feature_exams(settings, exams) == [exams[1], exams[2]]
    refusing = settings.model_copy(update={"missing_views": "refuse"})
    assert readable_exams(refusing, [replace(first, images=first.images[1:]), second]) == [second]


def test_a_site_without_a_test_exam_says_what_it_lacks(
    settings: RiskMiraiSettings, model: RiskModel, data: SiteData
) -> None:
    with pytest.raises(VisitFailed, match="with views and an outcome") as caught:
        evaluate(settings, model, replace(data, exams=_of(data, Split.TRAIN, "one")), CPU, _silent)
    assert caught.value.code is RefusalCode.NO_DATA


def test_risks_that_are_not_finite_are_refused(settings: RiskMiraiSettings, model: RiskModel, data: SiteData) -> None:
    with torch.no_grad():
        model.head.projection.bias.fill_(float("nan"))  # type: ignore[operator,union-attr]
    with pytest.raises(VisitFailed, match="not finite") as caught:
        score_exams(settings, model, data, data.exams[:2], CPU)
    assert caught.value.code is RefusalCode.NOT_FINITE
