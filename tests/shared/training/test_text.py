"""The task ``text``: the same step in chunks and processes, words that are learned, figures that move nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mammofed_shared.config.pretrain import OptimizerSettings
from mammofed_shared.config.tasks import TASKS
from mammofed_shared.config.text_adaptation import TextSettings
from mammofed_shared.errors import ConfigurationError, VisitFailed
from mammofed_shared.exam import Exam, Split
from mammofed_shared.models.text_adaptation import TextAdaptation
from mammofed_shared.report.masked_tokens import NOT_ASKED
from mammofed_shared.training.engine import WholeModelEngine
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.loop import Clock, LoopSettings, Position, train_epochs
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.step import accumulate_gradients
from mammofed_shared.training.text import TextTask, build_model
from mammofed_shared.training.text_evaluation import evaluate, validate
from prepared import TEXT_ENCODER
from report_exams import report_exams
from worker_groups import in_group, text_steps

SETTINGS = TextSettings.model_validate(
    {
        "text_encoder": {"weights": "none", "max_tokens": 64, "activation_checkpointing": False},
        "batch_size": 8,
        "precision": "fp32",
    }
)
CPU = torch.device("cpu")


def data_of(exams: list[Exam], least_cell: int = 2, datasets: tuple[str, ...] = ("one", "two")) -> SiteData:
    return SiteData(exams, datasets, TEXT_ENCODER, least_cell)


def model_of(settings: TextSettings = SETTINGS) -> TextAdaptation:
    torch.manual_seed(0)
    return build_model(settings, TEXT_ENCODER, True)


def task_of(exams: list[Exam], settings: TextSettings = SETTINGS) -> TextTask:
    return TextTask(settings, model_of(settings), data_of(exams), WorkerGroup(Hardware(threads=1)))


def engine_of(task: TextTask) -> WholeModelEngine:
    group = WorkerGroup(Hardware(threads=1))
    return WholeModelEngine(task.model, group, weight_decay=0.0, clip_norm=1.0, is_fp16=False)


def gradients(micro_batch: int | None) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    task = task_of(report_exams(8) + report_exams(3, dataset="two"), SETTINGS.model_copy(update={"batch_size": 11}))
    share = next(task.shares(1, 0, 0))
    found = accumulate_gradients(
        task, engine_of(task), WorkerGroup(Hardware(threads=1)), share, "fp32", micro_batch, seed=1
    )
    return found, {name: p.grad.numpy() for name, p in task.model.named_parameters() if p.grad is not None}


def test_chunks_of_2_are_the_whole_batch_to_1e_5() -> None:
    losses, whole = gradients(None)
    chunked_losses, chunked = gradients(2)

    assert set(losses) == {"loss", "mlm_loss", "pair_loss", "loss/d1", "loss/d2"}
    assert chunked_losses == pytest.approx(losses, rel=1e-5)
    assert whole.keys() == chunked.keys() == dict(model_of().named_parameters()).keys()
    for name, expected in whole.items():
        assert np.abs(chunked[name] - expected).max() <= 1e-5 * np.abs(expected).max() + 1e-9, name


@pytest.mark.parametrize("distribution", ["ddp", "zero-3"])
def test_two_processes_are_one(tmp_path: Path, distribution: str) -> None:
    hardware = Hardware(threads=1, distribution=distribution, num_processes=2)  # type: ignore[arg-type]

    together = in_group(hardware, tmp_path, "text_steps", 2)
    alone = text_steps(Hardware(threads=1), 2)

    assert together[0].keys() == alone.keys()
    for name, expected in alone.items():
        np.testing.assert_allclose(together[0][name], expected, rtol=1e-4, atol=2e-6, err_msg=name)


def test_shares_depend_on_seed_and_epoch_and_on_no_reader_and_15_percent_are_asked_for() -> None:
    exams = report_exams(40)
    one, other = (
        TextTask(SETTINGS, model_of(), data, WorkerGroup(Hardware(threads=1)))
        for data in (data_of(exams), SiteData(exams, ("one",), TEXT_ENCODER, 2, loaders=5))
    )
    first, again, later = list(one.shares(3, 0, 0)), list(other.shares(3, 0, 0)), list(one.shares(3, 1, 0))

    assert len(first) == one.num_steps == 5
    for share, same in zip(first, again, strict=True):
        assert all((a == b).all() for a, b in zip(share.inputs, same.inputs, strict=True))
    assert (next(one.shares(3, 0, 2)).inputs[0] == first[2].inputs[0]).all(), "goes on where it was cut"
    assert any(
        a.inputs[0].shape != b.inputs[0].shape or (a.inputs[0] != b.inputs[0]).any()
        for a, b in zip(first, later, strict=True)
    )
    num_asked = sum(int((share.inputs[2] != NOT_ASKED).sum()) for share in first)
    # Two tokens of [CLS] and [SEP] each, and the [SEP] between the sections, are no words.
    num_words = sum(int(share.inputs[1].sum()) - 3 * len(share.inputs[0]) for share in first)
    assert num_asked / num_words == pytest.approx(0.15, abs=0.02)
    assert np.mean(np.concatenate([share.inputs[3] for share in first])) == pytest.approx(0.5, abs=0.25)


def test_training_lowers_the_loss_of_hidden_words_and_moves_all_that_is_trained() -> None:
    exams = report_exams(32) + report_exams(16, Split.TEST)
    task = task_of(exams)
    data = data_of(exams)
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    untrained = evaluate(SETTINGS, task.model, data, CPU, lambda done, total: None).numbers
    position = Position()

    train_epochs(
        task,
        engine_of(task),
        WorkerGroup(Hardware(threads=1)),
        LoopSettings("fp32", None, 2),
        position,
        Clock(),
        learning_rate_at=lambda epochs_done: 2e-3,
        epochs=20,
        seed=1,
        report=lambda progress: None,
        save_if_due=lambda position: None,
    )
    trained = evaluate(SETTINGS, task.model, data, CPU, lambda done, total: None).numbers

    assert untrained["mlm_loss"] == pytest.approx(np.log(128), rel=0.1), "all words are alike at first"
    assert trained["mlm_loss"] < 0.7 * untrained["mlm_loss"]
    assert trained["mlm_accuracy"] > untrained["mlm_accuracy"] + 0.1
    assert position.means()["mlm_loss"] < 0.7 * untrained["mlm_loss"]
    still = {name for name, tensor in task.model.state_dict().items() if (tensor == before[name]).all()}
    assert still == set()
    assert task.numbers() == {"num_exams": 32}


def test_an_evaluation_is_repeatable_moves_nothing_and_tells_allowed_numbers() -> None:
    data = data_of(report_exams(4) + report_exams(12, Split.TEST))
    model = model_of().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    reported: list[tuple[int, int]] = []

    found = evaluate(SETTINGS, model, data, CPU, lambda done, total: reported.append((done, total)))

    assert found.numbers == evaluate(SETTINGS, model, data, CPU, lambda done, total: None).numbers
    assert set(found.numbers) == {"num_exams", "mlm_loss", "mlm_accuracy", "pair_loss", "pair_accuracy"}
    assert set(found.numbers) <= TASKS["text"].evaluate_metrics
    assert found.numbers["num_exams"] == 12 and not found.scores
    assert reported == [(1, 2), (2, 2)]
    assert model.training and all((tensor == before[name]).all() for name, tensor in model.state_dict().items())


def test_of_fewer_patients_than_the_least_cell_no_figure_is_told() -> None:
    exams = report_exams(9, Split.TEST) + report_exams(9, Split.VALIDATION)

    found = evaluate(SETTINGS, model_of(), data_of(exams, least_cell=10), CPU, lambda done, total: None)

    assert found.numbers == {"num_exams": 9}
    assert validate(SETTINGS, model_of(), data_of(exams, least_cell=10), CPU) == {}


def test_validation_is_told_per_data_set_by_its_number() -> None:
    exams = report_exams(4, Split.VALIDATION) + report_exams(6, Split.VALIDATION, "two") + report_exams(5)

    numbers = validate(SETTINGS, model_of(), data_of(exams, least_cell=5), CPU)

    assert set(numbers) == {
        f"{word}/d2" for word in ("num_exams", "mlm_loss", "mlm_accuracy", "pair_loss", "pair_accuracy")
    }
    assert numbers["num_exams/d2"] == 6
    allowed = TASKS["text"].train_metrics
    assert {f"sent/{name.replace('d2', 'd#')}" for name in numbers} <= allowed
    assert validate(SETTINGS, model_of(), data_of(report_exams(5)), CPU) == {}
    none = SETTINGS.model_copy(update={"validation_exams": 0})
    assert validate(none, model_of(), data_of(exams), CPU) == {}


def test_a_site_with_one_report_is_refused_and_one_without_test_reports_too() -> None:
    with pytest.raises(VisitFailed, match="NO_DATA: text adaptation needs at least 2"):
        task_of(report_exams(1))
    with pytest.raises(VisitFailed, match="NO_DATA"):
        evaluate(SETTINGS, model_of(), data_of(report_exams(4)), CPU, lambda done, total: None)


def test_a_step_without_a_pair_tells_no_loss_of_pairs() -> None:
    rows = [torch.tensor([4.0, 2.0]), torch.tensor([2.0, 2.0]), torch.zeros(2), torch.zeros(2)]
    leaves = tuple(row.requires_grad_() for row in rows)

    losses = task_of(report_exams(2)).losses(leaves)
    losses.loss.backward()  # type: ignore[no-untyped-call]

    assert set(losses.parts) == {"mlm_loss"} and losses.loss.item() == 1.5
    assert all(leaf.grad is not None for leaf in leaves), "the step needs the gradient of every output"


def test_an_encoder_that_cannot_hide_words_is_refused_when_the_model_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="text_encoder"):
        build_model(SETTINGS, tmp_path, True)


def test_weights_of_the_pair_and_of_the_words_are_those_of_the_settings() -> None:
    halved = SETTINGS.model_validate(
        SETTINGS.model_dump() | {"loss": {"masked_weight": 0.5, "pair_weight": 0}, "optimizer": OptimizerSettings()}
    )
    rows = tuple(torch.tensor(row).requires_grad_() for row in ([4.0, 2.0], [2.0, 2.0], [1.0, 0.0], [1.0, 0.0]))

    assert task_of(report_exams(2), halved).losses(rows).loss.item() == 0.75
    assert task_of(report_exams(2)).losses(rows).loss.item() == 2.5
