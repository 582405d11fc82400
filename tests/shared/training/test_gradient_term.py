"""FedProx's and SCAFFOLD's parts of the gradient: their formulas, by autograd and by plain numpy."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mammofed_shared.config.pretrain import OptimizerSettings
from mammofed_shared.errors import VisitFailed
from mammofed_shared.protocol.payload import Payload, write_payload
from mammofed_shared.protocol.task_spec import CONTROL
from mammofed_shared.training import engine as engines
from mammofed_shared.training.engine_of import make_engine
from mammofed_shared.training.gradient_term import ControlVariates, GradientTerm, ProximalTerm, save_own
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.kept import read_weights, save_checkpoint
from mammofed_shared.training.loop import Position
from mammofed_shared.training.optim import make_adamw
from mammofed_shared.training.state import load_arrays, load_state
from worker_groups import in_group, steps

ALONE = Hardware(threads=1)
GROUP = WorkerGroup(ALONE)
Vector = NDArray[np.float64]


class Small(nn.Module):
    """Two layers of which the second is not always used, a frozen one, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 1)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, rows_B3: Tensor, *, is_short: bool) -> Tensor:
        hidden = self.first(rows_B3).tanh()
        return hidden.sum(dim=1) if is_short else self.second(hidden).squeeze(1)


def small() -> Small:
    torch.manual_seed(0)
    return Small()


def _loss(model: Small, number: int) -> Tensor:
    rows = torch.from_numpy(np.random.default_rng(number).normal(size=(5, 3)).astype(np.float32))
    return 20 * (model(rows, is_short=number == 0) - 1).square().mean()


def test_the_proximal_term_is_what_autograd_makes_of_its_loss_and_is_clipped_with_it() -> None:
    mu, settings = 3.0, OptimizerSettings(clip_norm=0.7, weight_decay=0.1)
    ours, plain = small(), small()
    engine = make_engine(ours, GROUP, settings, "fp32", ProximalTerm(ours, mu))
    optimizer = make_adamw(plain, settings.weight_decay)
    received = [parameter.detach().clone() for parameter in plain.parameters() if parameter.requires_grad]
    for number in range(6):
        engine.backward(_loss(ours, number))
        norm = engine.step(0.05)
        trained = [parameter for parameter in plain.parameters() if parameter.requires_grad]
        pull = sum((p - r).square().sum() for p, r in zip(trained, received, strict=True))
        (_loss(plain, number) + mu / 2 * pull).backward()  # type: ignore[no-untyped-call]
        assert norm == pytest.approx(float(nn.utils.clip_grad_norm_(trained, settings.clip_norm)), rel=1e-5)
        for group in optimizer.param_groups:
            group["lr"] = 0.05
        optimizer.step()
        optimizer.zero_grad()
        for found, expected in zip(ours.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert norm > settings.clip_norm, "the clip was felt"


def test_without_a_term_nothing_is_added() -> None:
    one, other = small(), small()
    for model, term in ((one, None), (other, ProximalTerm(other, 1e-30))):
        engine = make_engine(model, GROUP, OptimizerSettings(), "fp32", term)
        for number in range(3):
            engine.backward(_loss(model, number + 1))
            engine.step(0.01)
    for found, expected in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_the_proximal_term_on_two_processes_is_that_of_one(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    alone = steps(ALONE, 8, 3, str(tmp_path / "alone"), None, mu=5.0)
    free = steps(ALONE, 8, 3, str(tmp_path / "alone"), None)
    hardware = Hardware(threads=1, distribution="ddp", num_processes=2)

    found = in_group(hardware, tmp_path, "steps", 8, 3, str(tmp_path), None, None, 5.0)

    assert any(not np.allclose(free["after"][name], array, rtol=1e-3) for name, array in alone["after"].items())
    for rank in found:
        for name, array in alone["after"].items():
            np.testing.assert_allclose(rank["after"][name], array, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("stage", ["zero-1", "zero-3"])
def test_a_site_whose_processes_hold_no_whole_gradient_refuses(stage: str) -> None:
    model = small()
    group = cast(WorkerGroup, SimpleNamespace(hardware=Hardware(threads=1, distribution=cast(Any, stage))))
    with pytest.raises(VisitFailed, match=rf"SETTINGS: worker.distribution is {stage}.*to none or ddp"):
        make_engine(model, group, OptimizerSettings(), "fp32", ProximalTerm(model, 1.0))


# ── SCAFFOLD on quadratics ──────────────────────────────────────────────────────────────────────────────────────────

CURVATURE = (np.array([1.0, 4.0, 0.5]), np.array([3.0, 0.5, 2.0]))
OPTIMUM = (np.array([1.0, -2.0, 3.0]), np.array([-2.0, 1.0, 0.0]))
NUM_STEPS, RATE = 8, 0.1
BEST = sum(c * o for c, o in zip(CURVATURE, OPTIMUM, strict=True)) / sum(CURVATURE)
"""Where the two sites' gradients cancel."""


class Quadratic(nn.Module):
    """½ Σ a (w − o)² of one site."""

    def __init__(self, weight: NDArray[Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float32))

    def loss(self, site: int) -> Tensor:
        curvature, optimum = (torch.tensor(values[site], dtype=torch.float32) for values in (CURVATURE, OPTIMUM))
        return 0.5 * (curvature * (self.weight - optimum).square()).sum()


def _visit_by_hand(site: int, x: Vector, c: Vector, own: Vector, rates: list[float]) -> tuple[Vector, Vector]:
    """A visit as the paper writes it (algorithm 1, option II), K·η being the sum of the learning rates."""
    y = x.copy()
    for rate in rates:
        y = y - rate * (CURVATURE[site] * (y - OPTIMUM[site]) - own + c)
    return y, own - c + (x - y) / sum(rates)


def _visit(site: int, x: Vector, c: Vector, own: Vector, rates: list[float]) -> tuple[Vector, Vector]:
    model = Quadratic(x)
    term = ControlVariates(model, {"weight": np.float32(c)}, {"weight": np.float32(own)})
    engine = make_engine(model, GROUP, OptimizerSettings(clip_norm=1e6), "fp32", term)
    for rate in rates:
        engine.backward(model.loss(site))
        engine.step(rate)
    after = term.after()
    change = term.changes(after)[CONTROL + "weight"]
    np.testing.assert_allclose(change, after["weight"] - np.float32(own), rtol=1e-6)
    return engine.weights()["weight"].astype(float), after["weight"].astype(float)


@pytest.fixture
def _sgd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain SGD in AdamW's place: what the paper's formula is of."""
    monkeypatch.setattr(engines, "make_adamw", lambda model, decay: torch.optim.SGD(model.parameters(), lr=0.0))


@pytest.mark.usefixtures("_sgd")
@pytest.mark.parametrize("rates", [[RATE] * NUM_STEPS, [RATE * (1 - step / 8) for step in range(NUM_STEPS)]])
def test_control_variates_are_the_papers_for_sgd_and_end_where_all_sites_are_best_served(rates: list[float]) -> None:
    x, c, own = np.zeros(3), np.zeros(3), [np.zeros(3), np.zeros(3)]
    drifting = np.zeros(3)
    for _ in range(60):
        visits = [_visit(site, x, c, own[site], rates) for site in range(2)]
        by_hand = [_visit_by_hand(site, x, c, own[site], rates) for site in range(2)]
        for (y, after), (y_by_hand, after_by_hand) in zip(visits, by_hand, strict=True):
            np.testing.assert_allclose(y, y_by_hand, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(after, after_by_hand, rtol=1e-4, atol=1e-5)
        x = np.mean([y for y, _ in visits], axis=0)
        c = c + sum(after - before for (_, after), before in zip(visits, own, strict=True)) / 2
        own = [after for _, after in visits]
        drifting = np.mean([_visit_by_hand(s, drifting, np.zeros(3), np.zeros(3), rates)[0] for s in range(2)], axis=0)
    np.testing.assert_allclose(x, BEST, atol=1e-4)
    np.testing.assert_allclose(c, np.zeros(3), atol=1e-3)
    assert np.abs(drifting - BEST).max() > 0.1, "FedAvg of the same visits ends elsewhere"


def test_with_adamw_the_new_variate_is_the_mean_gradient_whatever_the_size_of_its_steps() -> None:
    """AdamW moves by the learning rate, be the gradient 1 or 1e-4; a variate made of its path would have no unit."""
    for scale in (1.0, 1e-4):
        model = nn.Linear(3, 1)
        term = ControlVariates(model, {}, {})
        engine = make_engine(model, GROUP, OptimizerSettings(clip_norm=1e6), "fp32", term)
        for _ in range(4):
            engine.backward(scale * model(torch.tensor([[1.0, 2.0, 3.0]])).sum())
            engine.step(0.01)
        np.testing.assert_allclose(term.after()["weight"], scale * np.array([[1.0, 2.0, 3.0]]), rtol=1e-5)


def test_where_no_step_had_a_learning_rate_the_variate_stays() -> None:
    model = Quadratic(np.zeros(3))
    own = {"weight": np.float32([1, 2, 3])}
    term = ControlVariates(model, {}, own)
    model.loss(0).backward()  # type: ignore[no-untyped-call]
    term.note(0.0)
    assert np.array_equal(term.after()["weight"], own["weight"])
    assert not term.changes(term.after())[CONTROL + "weight"].any()


def test_of_what_is_not_trained_the_variate_never_changes() -> None:
    model = small()
    term = ControlVariates(model, {}, {})
    found = term.changes(term.after())
    assert set(found) == {CONTROL + name for name, _ in model.named_parameters()}
    assert found[CONTROL + "frozen.weight"].shape == (2, 2)


def test_what_a_visit_has_taken_down_goes_on_to_the_same_bits_after_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    common, own = ({"first.weight": np.full((4, 3), value, np.float32)} for value in (0.3, 0.1))

    def trained(model: Small, term: GradientTerm, first: int, last: int) -> None:
        engine = make_engine(model, GROUP, OptimizerSettings(state="reset"), "fp32", term)
        for number in range(first, last):
            engine.backward(_loss(model, number))
            engine.step(0.01 * (number + 1))
        if last == 3:
            save_checkpoint(path, model, engine, GROUP, Position(), term)

    whole = small()
    expected = ControlVariates(whole, common, own)
    trained(whole, expected, 0, 3)
    trained(whole, expected, 3, 6)
    again = Small()
    load_arrays(again, read_weights(path))
    found = ControlVariates(again, common, own)
    with Payload(path) as payload:
        found.restore(payload)
    trained(again, found, 3, 6)
    after: Mapping[str, NDArray[Any]] = expected.after()
    for name, array in found.after().items():
        assert array.tobytes() == after[name].tobytes(), name


def test_a_state_with_variates_is_taken_only_where_the_plan_says_so(tmp_path: Path) -> None:
    model = small()
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    controls = {CONTROL + name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    write_payload(tmp_path / "with", arrays | controls)
    write_payload(tmp_path / "without", arrays)
    load_state(model, tmp_path / "with", has_controls=True)
    with pytest.raises(VisitFailed, match=r"TENSOR_NAMES.*6 are unknown \(control/first.bias\)"):
        load_state(model, tmp_path / "with")
    with pytest.raises(VisitFailed, match=r"TENSOR_NAMES.*6 tensors of this site's model are missing"):
        load_state(model, tmp_path / "without", has_controls=True)


def test_the_own_variate_is_kept_as_it_is(tmp_path: Path) -> None:
    save_own(tmp_path / "control.safetensors", {"first.weight": np.full((4, 3), 0.25, np.float32)})
    with Payload(tmp_path / "control.safetensors") as payload:
        assert np.all(payload["first.weight"] == 0.25)
