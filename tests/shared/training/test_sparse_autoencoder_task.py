"""The task ``sae``: one step on any hardware, codes that are learned, neurons that come back, figures that may leave.

On one thread: these are small products, and other tests run beside them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from federation import make_plan
from frozen_encoders import write_frozen_encoder
from mammofed_shared.config.frozen_encoder import encoder_digest
from mammofed_shared.config.privacy import dp_sgd_obstacle, update_noise_obstacle
from mammofed_shared.config.sparse_autoencoder import SaeSettings
from mammofed_shared.errors import VisitFailed
from mammofed_shared.exam import Exam, Split
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder
from mammofed_shared.protocol.payload import Payload, reference_of, write_payload
from mammofed_shared.protocol.plan import Progress
from mammofed_shared.training.engine import WholeModelEngine
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.loop import Clock, LoopSettings, Position, train_epochs
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.sparse_autoencoder import SaeTask, build_model
from mammofed_shared.training.sparse_evaluation import evaluate, validate
from mammofed_shared.training.state import exchanged_arrays
from mammofed_shared.training.step import accumulate_gradients
from mammofed_shared.training.visit import (
    METRICS_FILE,
    MOMENTS_FILE,
    PAUSE_FILE,
    UPDATE_FILE,
    VisitFiles,
    train_visit,
)
from planted_patches import NUM_CHANNELS, NUM_PATCHES, PLANTED, planted_exams, planted_site
from worker_groups import in_group, sparse_steps

NUM_NEURONS = 64
MADE_ANEW = 4
"""Neurons that the patients of one step can make anew, each patient in one."""
SETTINGS = SaeSettings.model_validate(
    {
        "encoder_features": NUM_CHANNELS,
        "num_neurons": NUM_NEURONS,
        "levels": [1, 3, 8, 64],
        "patches_per_image": NUM_PATCHES,
        "images_per_step": 8,
        "loss": {"l1_weight": 0.05},
        "dead_after_epochs": 2,
        "fidelity": {"exams": 0},
    }
)
CPU = torch.device("cpu")
GROUP = WorkerGroup(Hardware(threads=1))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frozen_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> SiteData:
    exams = [*planted_exams(24), *planted_exams(12, Split.VALIDATION), *planted_exams(12, Split.TEST)]
    exams += planted_exams(5, Split.VALIDATION, "two")
    return planted_site(tmp_path_factory.mktemp("site"), encoder, exams)


def model_of(settings: SaeSettings = SETTINGS) -> SparseAutoencoder:
    torch.manual_seed(0)
    return build_model(settings, None, True)


def task_of(data: SiteData, settings: SaeSettings = SETTINGS) -> SaeTask:
    return SaeTask(settings, model_of(settings), data, GROUP)


def engine_of(task: SaeTask) -> WholeModelEngine:
    return WholeModelEngine(task.model, GROUP, weight_decay=0.0, clip_norm=1.0, is_fp16=False)


def train(task: SaeTask, epochs: int, learning_rate: float = 3e-3) -> Position:
    position = Position()
    train_epochs(
        task,
        engine_of(task),
        GROUP,
        LoopSettings("fp32", None, 2),
        position,
        Clock(),
        learning_rate_at=lambda epochs_done: learning_rate,
        epochs=epochs,
        seed=1,
        report=lambda progress: None,
        save_if_due=lambda position: None,
    )
    return position


def exams_of(data: SiteData, split: Split) -> Sequence[Exam]:
    return [exam for exam in data.exams if exam.split is split]


def silent(done: int, total: int) -> None:
    """Nobody watches."""


# ── one step ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_chunks_of_5_patches_are_the_whole_step_to_1e_5(data: SiteData) -> None:
    found = []
    for micro_batch in (None, 5):
        task = task_of(data)
        share = next(task.shares(1, 0, 0))
        losses = accumulate_gradients(task, engine_of(task), GROUP, share, "fp32", micro_batch, seed=1)
        grads = {name: p.grad.numpy() for name, p in task.model.named_parameters() if p.grad is not None}
        found.append((losses, grads, task.model.fired.clone()))

    (losses, whole, fired), (chunked_losses, chunked, chunked_fired) = found
    assert set(losses) == {"loss", "relative_error", "code_l1", "loss/d1"}
    assert losses["loss/d1"] == pytest.approx(losses["loss"])
    assert chunked_losses == pytest.approx(losses, rel=1e-5)
    assert torch.equal(fired, chunked_fired)
    assert whole.keys() == chunked.keys() == dict(model_of().named_parameters()).keys()
    for name, expected in whole.items():
        assert np.abs(chunked[name] - expected).max() <= 1e-5 * np.abs(expected).max(), name


def test_two_processes_are_one(data: SiteData, tmp_path: Path) -> None:
    hardware = Hardware(threads=1, distribution="ddp", num_processes=2)

    together = in_group(hardware, tmp_path, "sparse_steps", SETTINGS, data, 3)
    alone = sparse_steps(Hardware(threads=1), SETTINGS, data, 3)

    fires = alone["encoder_bias"] > -900
    assert fires.sum() == NUM_NEURONS // 2 + MADE_ANEW, "as many as there are patients for were made anew in epoch 3"
    assert set(alone["heard"][fires].tolist()) == {1}, "and have fired since"
    for rank in together:
        for name, expected in alone.items():
            np.testing.assert_allclose(rank[name], expected, rtol=1e-4, atol=2e-6, err_msg=name)


def test_shares_depend_on_seed_and_epoch_and_go_on_where_they_were_cut(data: SiteData) -> None:
    one, other = task_of(data), task_of(replace(data, loaders=5))
    first, again, later = list(one.shares(3, 0, 0)), list(other.shares(3, 0, 0)), list(one.shares(3, 1, 0))

    assert len(first) == one.num_steps == 6
    assert [sum(share.sizes) for share in first] == [SETTINGS.batch_size] * 6
    for share, same in zip(first, again, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(share.inputs, same.inputs, strict=True))
    assert np.array_equal(next(one.shares(3, 0, 2)).inputs[0], first[2].inputs[0])
    assert not any(np.array_equal(a.inputs[0], b.inputs[0]) for a, b in zip(first, later, strict=True))


def test_all_wide_levels_at_once_are_an_option(data: SiteData) -> None:
    turns = [
        next(task_of(data, SETTINGS.model_copy(update={"wide_levels": wide})).shares(1, 0, 0)).inputs[1]
        for wide in ("in-turn", "all")
    ]

    assert turns[0].tolist() == sorted(turns[0].tolist())
    assert set(turns[0].tolist()) == {0, 1, 2}  # of levels 3, 8 and 64; the first is narrow
    assert set(turns[1].tolist()) == {-1}


@pytest.mark.parametrize("variant", ["paper", "nmse"])
def test_the_loss_is_that_of_the_settings(data: SiteData, variant: str) -> None:
    loss = SETTINGS.loss.model_copy(update={"variant": variant})
    figures = torch.tensor([[4.0, 10.0, 8.0], [1.0, 0.0, 2.0]], requires_grad=True)

    found = task_of(data, SETTINGS.model_copy(update={"loss": loss})).losses((figures,))

    assert found.loss.item() == pytest.approx((4.5 + 1) / 2 if variant == "paper" else 0.5)
    assert found.parts["relative_error"].item() == pytest.approx(0.5)


# ── what is learned ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("wide", ["in-turn", "all"])
def test_training_finds_codes_that_explain_held_out_patches(data: SiteData, wide: str) -> None:
    settings = SETTINGS.model_copy(update={"wide_levels": wide})
    task = task_of(data, settings)
    untrained = evaluate(settings, task.model, data, CPU, silent).numbers

    position = train(task, epochs=40, learning_rate=1e-2)

    trained = evaluate(settings, task.model, data, CPU, silent).numbers
    assert untrained["explained_variance/k3"] < 0.5
    assert trained["explained_variance/k3"] > 0.75
    assert trained["explained_variance/k64"] > 0.9
    assert trained["explained_variance/k1"] < trained["explained_variance/k3"] < trained["explained_variance/k8"]
    assert trained["loss"] < 0.5 * untrained["loss"]
    assert position.means()["relative_error"] < 0.2


def test_training_moves_all_that_is_trained(data: SiteData) -> None:
    task = task_of(data)
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}

    train(task, epochs=1)

    still = {name for name, tensor in task.model.state_dict().items() if torch.equal(tensor, before[name])}
    assert still <= {"heard"}
    assert task.numbers()["num_exams"] == 24
    assert task.numbers()["silent_share"] == pytest.approx(float((task.model.heard != 1).double().mean()))


def test_a_new_autoencoder_begins_with_the_mean_of_patches_as_its_bias(data: SiteData) -> None:
    task = task_of(data)
    rows = next(task.shares(1, 0, 0)).inputs[0]
    assert not task.model.pre_bias.any()

    task.begin_epoch(1, 0)
    np.testing.assert_allclose(task.model.pre_bias.detach().numpy(), rows.mean(axis=0), rtol=1e-5)
    begun = task.model.pre_bias.detach().clone()
    task.begin_epoch(1, 1)
    assert torch.equal(task.model.pre_bias, begun)


def test_the_bias_is_not_the_mean_of_fewer_patients_than_the_least_cell(data: SiteData) -> None:
    task = task_of(replace(data, least_cell=SETTINGS.images_per_step + 1))

    task.begin_epoch(1, 0)

    assert not task.model.pre_bias.any()


# ── neurons that never fire ─────────────────────────────────────────────────────────────────────────────────────


def with_dead_half(task: SaeTask) -> torch.Tensor:
    """Silence half of the neurons for good."""
    dead = torch.arange(0, NUM_NEURONS, 2)
    with torch.no_grad():
        task.model.encoder_bias[dead] = -1000.0
    return dead


def test_dead_neurons_come_back_after_so_many_silent_epochs_and_are_used(data: SiteData) -> None:
    task = task_of(data)
    dead = with_dead_half(task)

    train(task, epochs=2)
    assert task.model.heard[dead].tolist() == [-1] * len(dead)
    assert task.numbers()["silent_share"] >= 0.5
    train(task, epochs=8, learning_rate=1e-2)

    assert task.numbers()["silent_share"] < 0.25
    numbers = evaluate(SETTINGS, task.model, data, CPU, silent).numbers
    assert numbers["dead_share/k64"] < 0.25
    assert numbers["dead_share/k1"] >= numbers["dead_share/k8"] >= numbers["dead_share/k64"]


def test_without_a_window_neurons_are_neither_watched_nor_revived(data: SiteData) -> None:
    task = task_of(data, SETTINGS.model_copy(update={"dead_after_epochs": 0}))
    dead = with_dead_half(task)

    train(task, epochs=6)

    assert task.model.heard.tolist() == [1] * NUM_NEURONS
    assert float(task.model.encoder_bias.detach()[dead].max()) < -900
    assert "silent_share" not in task.numbers()


def test_no_neuron_is_made_of_fewer_patients_than_the_least_cell(data: SiteData) -> None:
    task = task_of(replace(data, least_cell=SETTINGS.images_per_step + 1))
    dead = with_dead_half(task)

    train(task, epochs=6)

    assert float(task.model.encoder_bias.detach()[dead].max()) < -900
    assert int(task.model.heard[dead].max()) < -SETTINGS.dead_after_epochs


def test_an_epoch_that_begins_twice_after_a_cut_begins_alike(data: SiteData) -> None:
    begun = []
    for _ in range(2):
        task = task_of(data)
        with_dead_half(task)
        task.model.heard.fill_(-1)
        task.begin_epoch(7, 3)
        begun.append({name: tensor.clone() for name, tensor in task.model.state_dict().items()})

    patients = set(task._first_step(7, 3)[1])
    # All were dead; as many are made anew as there are patients for, each in one mixture.
    assert int((begun[0]["heard"] == 0).sum()) == len(patients) // data.least_cell > 1
    assert all(torch.equal(begun[0][name], begun[1][name]) for name in begun[0])


@pytest.mark.parametrize("cut_after", [1, 6, 7, 12, 13])
def test_a_visit_that_is_cut_goes_on_to_the_same_bits(data: SiteData, tmp_path: Path, cut_after: int) -> None:
    """Steps 6 and 12 end an epoch; neurons are made anew before the seventh and the thirteenth."""
    model = model_of()
    with torch.no_grad():
        model.encoder_bias[::2] = -1000.0
        model.heard[::2] = 0
    state = tmp_path / "state"
    write_payload(state, exchanged_arrays(model))
    asked = make_plan(reference_of(state)).model_copy(
        update={"task": SETTINGS, "epochs": 3, "epochs_total": 3, "text_encoder": None}
    )
    plan = asked.model_copy(update={"encoder": encoder_digest(data.encoder_folder)})

    def visit(out: Path, cut: int | None) -> None:
        (out / "kept").mkdir(parents=True, exist_ok=True)

        def report(progress: Progress) -> None:
            if progress.step == cut and progress.num_steps == 18:
                (out / "kept" / PAUSE_FILE).touch()

        files = VisitFiles(state, None, out, kept=out / "kept", checkpoint_every_s=600)
        train_visit(plan, files, data, Hardware(threads=1), report)

    visit(tmp_path / "whole", None)
    with pytest.raises(VisitFailed, match=f"pauses after {cut_after} steps"):
        visit(tmp_path / "cut", cut_after)
    (tmp_path / "cut/kept" / PAUSE_FILE).unlink()
    visit(tmp_path / "cut", None)

    for name in (UPDATE_FILE, MOMENTS_FILE, METRICS_FILE):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    with Payload(tmp_path / "whole" / UPDATE_FILE) as update:
        num_firing = int((update["encoder_bias"] > -900).sum())
    assert num_firing == NUM_NEURONS // 2 + 2 * MADE_ANEW, "as many as there are patients for, before either epoch"


# ── figures ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_evaluation_is_repeatable_and_moves_nothing(data: SiteData) -> None:
    model = model_of().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    reported: list[tuple[int, int]] = []

    found = evaluate(SETTINGS, model, data, CPU, lambda done, total: reported.append((done, total)))

    assert found.numbers == evaluate(SETTINGS, model, data, CPU, silent).numbers
    levels = [f"{word}/k{level}" for word in ("explained_variance", "dead_share") for level in SETTINGS.levels]
    assert set(found.numbers) == {"num_exams", "loss", *levels}
    assert found.numbers["num_exams"] == 12 and not found.scores
    assert reported == [(1, 3), (2, 3), (3, 3)]
    assert model.training and all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model.fired.any()


def test_of_fewer_patients_than_the_least_cell_no_figure_is_told(data: SiteData) -> None:
    few = replace(data, least_cell=13)

    assert evaluate(SETTINGS, model_of(), few, CPU, silent).numbers == {"num_exams": 12}
    assert validate(SETTINGS, model_of(), few, CPU) == {}


def test_validation_is_told_per_data_set_by_its_number(data: SiteData) -> None:
    numbers = validate(SETTINGS, model_of(), replace(data, least_cell=6), CPU)

    assert {name.split("/")[-1] for name in numbers} == {"d1"}, "the second data set has 5 patients"
    assert numbers["num_exams/d1"] == 12
    one = validate(SETTINGS, model_of(), data, CPU)
    assert one["num_exams/d2"] == 5
    assert one["explained_variance/k64/d1"] == numbers["explained_variance/k64/d1"]
    assert one["explained_variance/k64/d1"] != one["explained_variance/k64/d2"]
    assert validate(SETTINGS.model_copy(update={"validation_exams": 0}), model_of(), data, CPU) == {}


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_site_without_images_is_refused_and_so_are_processes_that_divide_weights(data: SiteData) -> None:
    with pytest.raises(VisitFailed, match="NO_DATA: training needs at least 2 images"):
        task_of(replace(data, exams=exams_of(data, Split.TEST)))
    with pytest.raises(VisitFailed, match="NO_DATA: evaluation needs exams"):
        evaluate(SETTINGS, model_of(), replace(data, exams=exams_of(data, Split.TRAIN)), CPU, silent)
    group = WorkerGroup(Hardware(threads=1))
    group.hardware = Hardware(threads=1, distribution="zero-2")
    with pytest.raises(VisitFailed, match=r"set worker\.distribution to none or ddp"):
        SaeTask(SETTINGS, model_of(), data, group)


@pytest.mark.parametrize("levels", [[8, 4], [4, 4], [0, 4], [4, 65], []])
def test_levels_must_rise_within_the_neurons(levels: list[int]) -> None:
    with pytest.raises(ValueError, match="levels"):
        SaeSettings.model_validate(SETTINGS.model_dump() | {"levels": levels})


def test_noise_on_updates_asks_that_no_neuron_is_watched() -> None:
    watched = update_noise_obstacle(SETTINGS)

    assert watched is not None and "dead_after_epochs to 0" in watched
    assert update_noise_obstacle(SETTINGS.model_copy(update={"dead_after_epochs": 0})) is None
    assert dp_sgd_obstacle(SETTINGS) is not None


def test_planted_patches_are_what_the_tests_take_them_for(data: SiteData) -> None:
    assert PLANTED > NUM_CHANNELS, "more directions than channels"
    rows = next(task_of(data).shares(1, 0, 0)).inputs[0]
    assert rows.shape == (SETTINGS.batch_size, NUM_CHANNELS) and rows.std() > 0.5
