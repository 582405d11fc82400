"""The loop: a step without finite numbers leaves no trace, moments and place are kept to the bit."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mammofed_shared.config.pretrain import OptimizerSettings
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.training.engine import Engine
from mammofed_shared.training.engine_of import make_engine
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.kept import (
    load_moments,
    read_weights,
    restore_position,
    save_checkpoint,
    save_moments,
)
from mammofed_shared.training.loop import Clock, LoopSettings, NotFinite, Position, train_epochs
from mammofed_shared.training.share import Share
from mammofed_shared.training.state import load_arrays
from mammofed_shared.training.step import Losses, Precision

NUM_STEPS = 6


class Tiny(nn.Module):
    """A convolution, its batch normalisation and a mean: parameters with and without decay, and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, image_B1HW: Tensor) -> tuple[Tensor]:
        return (self.norm(self.convolution(image_B1HW)).tanh().mean(dim=(2, 3)),)


class TinyTask:
    """Squares of what ``Tiny`` says of random images; images of the steps in ``broken`` hold a NaN."""

    num_steps = NUM_STEPS

    def __init__(self, model: nn.Module, broken: frozenset[int] = frozenset(), left_out: frozenset[int] = frozenset()):
        self.model = model
        self.broken = broken
        self.left_out = left_out
        self.after = 0

    def shares(self, seed: int, epoch: int, start: int) -> Iterator[Share]:
        for step in range(start, NUM_STEPS):
            if step in self.left_out:
                continue
            images = np.random.default_rng([seed, epoch, step]).normal(size=(4, 1, 5, 5)).astype(np.float32)
            if step in self.broken:
                images[0, 0, 2, 2] = np.nan
            yield Share((images,), (4,), np.zeros(4, np.int64), {"num_texts_cut": 1})

    def losses(self, outputs: tuple[Tensor, ...]) -> Losses:
        return Losses((outputs[0] - 0.5).square().mean(), {"shifted": outputs[0].mean()}, outputs[0].mean(dim=1))

    def after_step(self, engine: Engine) -> None:
        self.after += 1

    def numbers(self) -> dict[str, float]:
        return {}


class Cut(Exception):
    """Where a test ends a visit."""


def train(
    task: TinyTask,
    *,
    precision: Precision = "fp32",
    position: Position | None = None,
    engine: Engine | None = None,
    save: Any = lambda position: None,
    most_skipped: int = 3,
) -> tuple[Position, Engine]:
    group = WorkerGroup(Hardware(threads=1))
    engine = engine or make_engine(task.model, group, OptimizerSettings(weight_decay=0.1), precision)
    position = position or Position()
    train_epochs(
        task,
        engine,
        group,
        LoopSettings(precision, None, most_skipped),
        position,
        Clock(),
        learning_rate_at=lambda epochs: 0.01 * (1 - epochs / 4),
        epochs=2,
        seed=5,
        report=lambda progress: None,
        save_if_due=save,
    )
    return position, engine


def tiny() -> Tiny:
    torch.manual_seed(0)
    return Tiny()


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_a_step_without_a_finite_loss_is_skipped_counted_and_leaves_no_trace() -> None:
    broken, left_out = TinyTask(tiny(), broken=frozenset({1, 4})), TinyTask(tiny(), left_out=frozenset({1, 4}))

    position, _ = train(broken)
    # The same steps without those two, each at the place that it has in the epoch.
    engine = make_engine(left_out.model, WorkerGroup(Hardware(threads=1)), OptimizerSettings(weight_decay=0.1), "fp32")
    left_out.model.train()
    for epoch in range(2):
        for step in range(NUM_STEPS):
            if step in (1, 4):
                continue
            [share] = [next(TinyTask(left_out.model).shares(5, epoch, step))]
            found = left_out.losses(left_out.model(torch.from_numpy(share.inputs[0])))
            found.loss.backward()
            engine.step(0.01 * (1 - (epoch + step / NUM_STEPS) / 4))

    assert (position.num_steps, position.num_skipped, position.epoch) == (12, 4, 2)
    assert broken.after == 8
    expected = values(left_out.model)
    for name, tensor in values(broken.model).items():
        assert torch.isfinite(tensor).all()
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-7)
    assert all(math.isfinite(value) for value in position.means().values())


def test_too_many_in_a_row_end_the_visit_and_tell_those_steps() -> None:
    with pytest.raises(NotFinite, match="3 steps in a row") as failed:
        train(TinyTask(tiny(), broken=frozenset({2, 3, 4})))

    assert failed.value.code is RefusalCode.NOT_FINITE_LOSS
    assert [step["step"] for step in failed.value.steps] == [2, 3, 4]
    assert all(set(step) <= {"epoch", "step", "lr", "loss", "shifted", "loss/d1"} for step in failed.value.steps)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_visit_that_is_cut_after_any_step_goes_on_to_the_same_bits(tmp_path: Path, precision: Precision) -> None:
    whole = TinyTask(tiny(), broken=frozenset({3}))
    path = tmp_path / "checkpoint.safetensors"
    group = WorkerGroup(Hardware(threads=1))
    # A scale that grows every third step: when it does is part of what is kept.
    quick = {"scale": 2.0**4, "growth_interval": 3} if precision == "fp16" else {}
    engine = make_engine(whole.model, group, OptimizerSettings(weight_decay=0.1), precision)
    engine.set_scaler_state(engine.scaler_state() | quick)
    expected, _ = train(whole, engine=engine, precision=precision)

    for cut_after in range(1, 12):
        first = TinyTask(tiny(), broken=whole.broken)
        engine = make_engine(first.model, group, OptimizerSettings(weight_decay=0.1), precision)
        engine.set_scaler_state(engine.scaler_state() | quick)

        def save(
            position: Position, first: TinyTask = first, engine: Engine = engine, cut_after: int = cut_after
        ) -> None:
            if position.num_steps == cut_after:
                save_checkpoint(path, first.model, engine, group, position)
                raise Cut

        with pytest.raises(Cut):
            train(first, engine=engine, save=save, precision=precision)
        second = TinyTask(Tiny(), broken=whole.broken)
        load_arrays(second.model, read_weights(path))
        shapes = {name: tuple(parameter.shape) for name, parameter in second.model.named_parameters()}
        engine = make_engine(second.model, group, OptimizerSettings(weight_decay=0.1), precision)
        load_moments(path, second.model, shapes, engine)
        start = restore_position(path, second.model, engine, group)
        position, _ = train(second, position=start, engine=engine, precision=precision)

        assert position == expected
        for name, tensor in values(second.model).items():
            assert torch.equal(tensor, values(whole.model)[name]), f"{name}, cut after {cut_after}"


def test_fp16_lowers_its_scale_without_losing_weights_and_keeps_it() -> None:
    task = TinyTask(tiny())
    group = WorkerGroup(Hardware(threads=1))
    engine = make_engine(task.model, group, OptimizerSettings(), "fp16")
    engine.set_scaler_state(engine.scaler_state() | {"scale": 2.0**40})

    position, _ = train(task, precision="fp16", engine=engine, most_skipped=1)

    assert position.num_skipped > 0
    assert engine.loss_scale == 2.0 ** (40 - position.num_skipped)
    assert all(torch.isfinite(tensor).all() for tensor in values(task.model).values())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_nearly_as_full_precision(precision: Precision) -> None:
    low, full = TinyTask(tiny()), TinyTask(tiny())

    found, _ = train(low, precision=precision)
    expected, _ = train(full)

    assert found.means()["loss"] == pytest.approx(expected.means()["loss"], rel=0.1)
    assert found.means()["loss"] != expected.means()["loss"]
    assert {tensor.dtype for tensor in low.model.parameters()} == {torch.float32}


def test_moments_of_another_model_are_refused(tmp_path: Path) -> None:
    task = TinyTask(tiny())
    _, engine = train(task)
    group = WorkerGroup(Hardware(threads=1))
    save_moments(tmp_path / "moments.safetensors", engine, group)
    other = nn.Linear(4, 3)
    shapes = {name: tuple(parameter.shape) for name, parameter in other.named_parameters()}

    with pytest.raises(VisitFailed, match=r"SETTINGS.*first/weight"):
        load_moments(tmp_path / "moments.safetensors", other, shapes, engine)


def test_a_checkpoint_of_another_model_is_refused() -> None:
    arrays = {name: tensor.numpy() for name, tensor in copy.deepcopy(tiny()).state_dict().items()}
    with pytest.raises(VisitFailed, match=r"SETTINGS"):
        load_arrays(nn.Linear(4, 3), arrays)


def test_a_visit_whose_data_have_shrunk_since_it_was_cut_says_so() -> None:
    with pytest.raises(VisitFailed, match=r"SETTINGS: the data have changed"):
        train(TinyTask(tiny()), position=Position(step=NUM_STEPS))
