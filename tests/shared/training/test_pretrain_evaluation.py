"""What ``pretrain`` measures on prepared phantoms: the numbers that leave, and that nothing of the model moves."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from federation import METRICS, make_plan, small_state
from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.exam import Exam, Report, Split
from mammofed_shared.models.dual_encoder import DualEncoder
from mammofed_shared.models.image_encoder import ImageEncoder
from mammofed_shared.models.text_encoder import TextEncoder
from mammofed_shared.protocol.release import check_metrics
from mammofed_shared.training.pretrain_evaluation import evaluate, validate
from prepared import SMALL, TEXT_ENCODER, prepare_dataset

CPU = torch.device("cpu")
SETTINGS = PretrainSettings.model_validate({"precision": "fp32", "measure": {"images_at_once": 8, "probe_exams": 14}})
RECALLS = {f"recall_at_{rank}" for rank in (1, 5, 10)}
AUROCS = {"auroc", "auroc_low", "auroc_high"}
FIGURES = AUROCS | {"num_positive", "num_labelled"}


@pytest.fixture(scope="module")
def exams(tmp_path_factory: pytest.TempPathFactory) -> list[Exam]:
    folder = tmp_path_factory.mktemp("prepared")
    prepare_dataset(folder, seed=1, num_training=16, num_test=12)
    return read_exams([("one", folder)], SMALL.digest)


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    """A dual encoder that was not trained, but tells images apart."""
    torch.manual_seed(0)
    image_encoder = ImageEncoder("mammofed_small_cnn", pooling="avgmax", batch_norm="frozen")
    last = [module for module in image_encoder.modules() if isinstance(module, torch.nn.BatchNorm2d)][-1]
    torch.nn.init.ones_(last.weight)
    return DualEncoder(image_encoder, TextEncoder(TEXT_ENCODER, pretrained=False), 16)


def measured(
    function: str, model: DualEncoder, exams: list[Exam], least_cell: int, settings: PretrainSettings = SETTINGS
) -> dict[str, float]:
    def report(done: int, total: int) -> None:
        assert 0 < done <= total

    if function == "evaluate":
        return evaluate(settings, model, TEXT_ENCODER, exams, CPU, 1, report, least_cell).numbers
    return validate(
        settings, model, TEXT_ENCODER, exams, CPU, 1, report, datasets=("two", "one"), least_cell=least_cell
    )


def may_leave(folder: Path, kind: str, numbers: Mapping[str, float]) -> None:
    """Raise where the numbers are not those of the list."""
    check_metrics(make_plan(small_state(folder / "state"), kind=kind), numbers)


def validation(exams: list[Exam], dataset: str = "one") -> list[Exam]:
    return [replace(exam, split=Split.VALIDATION, dataset=dataset, exam=f"{dataset}{exam.exam}") for exam in exams]


def test_an_evaluation_tells_auroc_probe_and_histograms_of_findings_with_enough_patients(
    tmp_path: Path, model: DualEncoder, exams: list[Exam]
) -> None:
    tested = [exam for exam in exams if exam.split is Split.TEST]
    positive = {finding: sum(exam.labels[finding] for exam in tested) for finding in SETTINGS.findings}
    assert (len(tested), positive) == (12, {"mass": 9, "calcification": 6})

    numbers = measured("evaluate", model, exams, least_cell=6)

    may_leave(tmp_path, "evaluate", numbers)
    told = {name for name in numbers if "/" in name and not name.startswith("histogram")}
    figures = FIGURES | {f"probe_{word}" for word in AUROCS}
    assert told == {f"{word}/calcification" for word in figures} | {"suppressed/mass"}, "three have no mass"
    area = numbers["auroc/calcification"]
    assert numbers["auroc_low/calcification"] <= area <= numbers["auroc_high/calcification"]
    # Six patients of each class and a least cell of six: one bin each.
    assert sorted(value for name, value in numbers.items() if name.startswith("histogram_") and value) == [6, 6]


@pytest.mark.parametrize("function", ["evaluate", "validate"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_tensor_of_the_model_moves_and_every_module_keeps_its_mode(
    model: DualEncoder, exams: list[Exam], function: str, precision: str
) -> None:
    model.train()
    modes = [module.training for module in model.modules()]
    assert True in modes and False in modes, "the frozen batch normalisations are in evaluation mode"
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()

    settings = SETTINGS.model_copy(update={"precision": precision})
    numbers = measured(function, model, exams + validation(exams), 2, settings)

    assert "probe_auroc/mass" in numbers or function == "validate"
    assert [module.training for module in model.modules()] == modes
    after = model.state_dict()
    assert set(after) == set(before) and all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), random), "training goes on with the same random numbers"


def test_the_probe_is_off_unless_asked_for(model: DualEncoder, exams: list[Exam]) -> None:
    plain = SETTINGS.model_copy(update={"measure": SETTINGS.measure.model_copy(update={"probe_exams": 0})})
    with_probe, without = (measured("evaluate", model, exams, 2, settings) for settings in (SETTINGS, plain))
    assert {name: value for name, value in with_probe.items() if not name.startswith("probe_")} == without


def test_a_validation_tells_each_data_set_by_its_number_in_the_sites_order(
    tmp_path: Path, model: DualEncoder, exams: list[Exam]
) -> None:
    numbers = measured("validate", model, validation(exams, "one") + validation(exams[:6], "two"), least_cell=4)

    may_leave(tmp_path, "train", {**METRICS, **{f"sent/{name}": value for name, value in numbers.items()}})
    assert (numbers["num_exams/d2"], numbers["num_exams/d1"]) == (28, 6), "`two` stands first in the site's YAML"
    own = {name for name in numbers if name.endswith("/d2")}
    assert own == {f"{word}/d2" for word in RECALLS | {"num_exams", "num_texts"}} | {
        f"{word}/{finding}/d2" for word in FIGURES for finding in SETTINGS.findings
    }
    alone = measured("validate", model, validation(exams, "one"), least_cell=4)
    assert alone == {name: numbers[name] for name in own}, "another data set changes nothing"


def test_a_data_set_of_too_few_patients_tells_nothing(model: DualEncoder, exams: list[Exam]) -> None:
    few = validation(exams[:6], "two")
    twice = [replace(exam, exam=f"{exam.exam}-again") for exam in few]
    assert measured("validate", model, few + twice, least_cell=7) == {}, "twelve exams of six patients"
    assert measured("validate", model, few + twice, least_cell=6)["num_exams/d1"] == 12


def test_an_exam_without_a_report_counts_for_findings_only(model: DualEncoder, exams: list[Exam]) -> None:
    silent = [replace(exam, report=None) for exam in validation(exams)]
    numbers = measured("validate", model, silent, least_cell=4)
    assert set(numbers) == {f"{word}/{finding}/d2" for word in FIGURES for finding in SETTINGS.findings}
    mixed = measured("validate", model, [*validation(exams)[:10], *silent[10:]], least_cell=4)
    assert (mixed["num_exams/d2"], mixed["num_labelled/mass/d2"]) == (10, 28)


def test_equal_reports_are_all_right(model: DualEncoder, exams: list[Exam]) -> None:
    same = [replace(exam, report=Report("Nothing.", "Benign.")) for exam in validation(exams)]
    numbers = measured("validate", model, same, least_cell=4)
    assert (numbers["num_texts/d2"], numbers["recall_at_1/d2"]) == (1, 1.0)


def test_no_more_exams_are_validated_than_the_settings_say(model: DualEncoder, exams: list[Exam]) -> None:
    measure = SETTINGS.measure.model_copy(update={"validation_exams": 10})
    numbers = measured("validate", model, validation(exams), 2, SETTINGS.model_copy(update={"measure": measure}))
    assert numbers["num_exams/d2"] == 10
    assert measured("validate", model, exams, 2) == {}, "there are no validation exams"
