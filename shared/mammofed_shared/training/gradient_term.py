"""What a strategy adds to a site's gradients: FedProx's pull to the received state, SCAFFOLD's control variates.

A term acts on whole gradients, after they were averaged over the group and before they are clipped, so it is exact for
one process and for DDP. ZeRO's processes never hold a whole gradient: such a site refuses the plan (``visit.py``).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mammofed_shared.protocol.payload import Payload, write_payload
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.protocol.task_spec import CONTROL

Arrays = Mapping[str, NDArray[Any]]
_PATH = "path/"
_RATES = "path_rates"


class GradientTerm(Protocol):
    """A part of the gradient that no loss gives. Each process of the group has its own, with equal values."""

    def add(self) -> None:
        """Add it to the gradients of a step."""

    def note(self, learning_rate: float) -> None:
        """Take down a step that is made; the gradients are clipped by now."""

    def kept(self) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
        """Tensors and numbers from which a visit that is cut goes on."""

    def restore(self, payload: Payload) -> None:
        """Go on from what was kept."""


class ProximalTerm:
    """μ · (w − w_received), the gradient of FedProx's term μ/2 · ‖w − w_received‖² (Li et al. 2020, equation 2).

    Args:
        model: as it was received, on the group's device.
    """

    def __init__(self, model: nn.Module, mu: float) -> None:
        self._mu = mu
        self._received = [(parameter, parameter.detach().clone()) for _, parameter in _trained(model)]

    @torch.no_grad()
    def add(self) -> None:
        """As ``GradientTerm``."""
        for parameter, received in self._received:
            _gradient_of(parameter).add_(parameter - received, alpha=self._mu)

    def note(self, learning_rate: float) -> None:
        """As ``GradientTerm``; there is nothing to take down."""

    def kept(self) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
        """As ``GradientTerm``; the received state is all that it hangs on."""
        return {}, {}

    def restore(self, payload: Payload) -> None:
        """As ``GradientTerm``."""


class ControlVariates:
    """c − c_i on each gradient, and the site's new variate from the visit's path (Karimireddy et al. 2020, option II).

    Option II is c_i⁺ = c_i − c + (x − y) / (K·η) for K steps of SGD, whose path x − y is the sum of η times each
    corrected gradient. Here that sum is taken from the (clipped) gradients themselves, with the learning rates that
    the steps had: the same number for SGD, and a gradient whatever the optimizer. AdamW's own path is none: its steps
    have the size of the learning rate however small the gradients are.

    Args:
        model: on the group's device.
        common: c, by parameter; 0 where there is none.
        own: c_i, likewise.
    """

    def __init__(self, model: nn.Module, common: Arrays, own: Arrays) -> None:
        self._model = model
        self._own = own
        self._trained = list(_trained(model))
        self._correction = [
            _like(parameter, common.get(name)) - _like(parameter, own.get(name)) for name, parameter in self._trained
        ]
        self._path = [torch.zeros_like(correction) for correction in self._correction]
        self._rates = 0.0

    @torch.no_grad()
    def add(self) -> None:
        """As ``GradientTerm``."""
        for (_, parameter), correction in zip(self._trained, self._correction, strict=True):
            _gradient_of(parameter).add_(correction)

    @torch.no_grad()
    def note(self, learning_rate: float) -> None:
        """As ``GradientTerm``."""
        for (_, parameter), path in zip(self._trained, self._path, strict=True):
            path.add_(_gradient_of(parameter), alpha=learning_rate)
        self._rates += learning_rate

    def kept(self) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
        """As ``GradientTerm``."""
        paths = zip(self._trained, self._path, strict=True)
        return {_PATH + name: path.cpu().numpy() for (name, _), path in paths}, {_RATES: self._rates}

    def restore(self, payload: Payload) -> None:
        """As ``GradientTerm``."""
        for (name, _), path in zip(self._trained, self._path, strict=True):
            path.copy_(torch.from_numpy(payload[_PATH + name].copy()))
        self._rates = payload.numbers[_RATES]

    def after(self) -> dict[str, NDArray[np.float32]]:
        """c_i⁺ of each trained parameter; c_i where every step had a learning rate of 0."""
        found: dict[str, NDArray[np.float32]] = {}
        for (name, parameter), correction, path in zip(self._trained, self._correction, self._path, strict=True):
            new = path / self._rates - correction if self._rates else _like(parameter, self._own.get(name))
            found[name] = new.cpu().numpy()
        return found

    def changes(self, after: Arrays) -> dict[str, NDArray[Any]]:
        """What the update brings: c_i⁺ − c_i by the names of the control variates; 0 for what is not trained."""
        found: dict[str, NDArray[Any]] = {}
        for name, parameter in self._model.named_parameters(remove_duplicate=False):
            old = self._own.get(name, 0)
            found[CONTROL + name] = after[name] - old if name in after else np.zeros(tuple(parameter.shape), np.float32)
        return found


def term_of(plan: Plan, model: nn.Module, state: Path | None, own: Path | None) -> GradientTerm | None:
    """The term that a plan asks for; None where it asks for none.

    Args:
        model: as it was received, on the group's device.
        state: the payload that came, with the common control variates; None: they are 0.
        own: what the site kept of its last visit; None: 0, as before its first one.
    """
    if plan.control_variates:
        return ControlVariates(model, _read(state, CONTROL), _read(own, ""))
    return ProximalTerm(model, plan.proximal_mu) if plan.proximal_mu else None


def save_own(path: Path, after: Arrays) -> None:
    """Keep the site's own control variate for its next visit; it never leaves."""
    write_payload(path, after)


def _read(path: Path | None, prefix: str) -> dict[str, NDArray[Any]]:
    if path is None:
        return {}
    with Payload(path) as payload:
        return {name.removeprefix(prefix): payload[name].copy() for name in payload if name.startswith(prefix)}


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    """Its gradient; of 0 where the step's loss does not depend on it, as a term in the loss would make one."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _like(parameter: nn.Parameter, array: NDArray[Any] | None) -> Tensor:
    if array is None:
        return torch.zeros_like(parameter, requires_grad=False)
    return torch.from_numpy(array).to(parameter.device).reshape(parameter.shape)
