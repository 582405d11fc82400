"""What a site keeps of training: moments between visits, and a checkpoint in the midst of one. Neither ever leaves.

Both are payload files (safetensors), whole and in full precision, whatever the hardware was:

    moments        first/<name>, second/<name>; number `steps`
    checkpoint     the same, weight/<name>, buffers (processes, values); numbers: the loop's position, loss scale;
                   what the strategy's part of the gradient has taken down (``gradient_term.py``)

There is no random state in it: whatever a step draws is a function of the visit's seed and the step's place.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mammofed_shared.errors import PayloadError, RefusalCode, VisitFailed
from mammofed_shared.protocol.payload import Payload, write_payload
from mammofed_shared.training.engine import Engine, Moments
from mammofed_shared.training.gradient_term import GradientTerm
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.loop import Position

_WEIGHT = "weight/"
_SCALER = "scaler/"


def save_moments(path: Path, engine: Engine, group: WorkerGroup) -> None:
    """Write both moments of every parameter, by its name, and the number of steps that they have seen."""
    tensors = _moment_tensors(engine)
    if group.rank == 0:
        write_payload(path, tensors, {"steps": engine.num_steps})


def load_moments(path: Path, model: nn.Module, shapes: Mapping[str, tuple[int, ...]], engine: Engine) -> None:
    """Give an engine the moments that ``save_moments`` or ``save_checkpoint`` wrote.

    Raises:
        VisitFailed: SETTINGS, when they belong to another model.
    """
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    with Payload(path) as payload:
        if payload.numbers["steps"] == 0:
            return
        kept = {
            name: Moments(name, _moment(payload, f"first/{name}", shapes), _moment(payload, f"second/{name}", shapes))
            for name in trained
        }
        engine.set_moments(kept, payload.numbers["steps"])


def save_checkpoint(
    path: Path,
    model: nn.Module,
    engine: Engine,
    group: WorkerGroup,
    position: Position,
    term: GradientTerm | None = None,
) -> None:
    """Write everything from which this visit goes on with its next step; whole or not at all."""
    weights = engine.weights()
    tensors = _moment_tensors(engine) | {_WEIGHT + name: array for name, array in weights.items()}
    buffers = group.gather_rows(_flat_buffers(model)[None], [1] * group.size)
    told = {name: group.sum(value) for name, value in sorted(position.told.items())}
    if group.rank == 0:
        numbers = _as_numbers(position, told) | {"steps": engine.num_steps}
        numbers |= {_SCALER + name: value for name, value in engine.scaler_state().items()}
        noted, counted = term.kept() if term is not None else ({}, {})
        write_payload(path, tensors | noted | {"buffers": buffers.cpu().numpy()}, numbers | counted)


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """The weights of a checkpoint.

    Raises:
        PayloadError: it is not whole.
    """
    with Payload(path) as payload:
        names = [name for name in payload.entries if name.startswith(_WEIGHT)]
        if not names or "buffers" not in payload.entries:
            raise PayloadError("a visit's checkpoint: expected weights and buffers")
        return {name.removeprefix(_WEIGHT): payload[name].copy() for name in names}


def restore_position(path: Path, model: nn.Module, engine: Engine, group: WorkerGroup) -> Position:
    """The place of a checkpoint; gives this process its own running statistics, and the engine its loss scale."""
    with Payload(path) as payload:
        rows = torch.from_numpy(payload["buffers"].copy())
        # A group of another size: each process starts from the mean, as the visit's end would make it.
        own = rows[group.rank] if len(rows) == group.size else _mean(rows)
        _set_flat_buffers(model, own)
        engine.set_scaler_state(
            {name.removeprefix(_SCALER): v for name, v in payload.numbers.items() if name.startswith(_SCALER)}
        )
        position = _from_numbers(payload.numbers)
    if group.rank > 0:
        position.told = dict.fromkeys(position.told, 0.0)
    return position


def average_buffers(model: nn.Module, group: WorkerGroup) -> None:
    """Give every process the mean of all processes' running statistics; equal ones stay as they are, to the bit."""
    if group.size > 1:
        _set_flat_buffers(model, _mean(group.gather_rows(_flat_buffers(model)[None], [1] * group.size)))


def _mean(rows: Tensor) -> Tensor:
    return rows[0] + (rows - rows[0]).mean(dim=0)


def _float_buffers(model: nn.Module) -> list[Tensor]:
    return [buffer for buffer in model.buffers() if buffer.is_floating_point()]


def _flat_buffers(model: nn.Module) -> Tensor:
    nothing = torch.zeros(0, device=next(model.parameters()).device)
    return torch.cat([nothing, *(buffer.reshape(-1) for buffer in _float_buffers(model))])


def _set_flat_buffers(model: nn.Module, flat: Tensor) -> None:
    start = 0
    for buffer in _float_buffers(model):
        buffer.copy_(flat[start : start + buffer.numel()].reshape(buffer.shape))
        start += buffer.numel()


def _moment_tensors(engine: Engine) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {}
    for item in engine.moments():
        tensors |= {f"first/{item.name}": item.first, f"second/{item.name}": item.second}
    return tensors


def _moment(payload: Payload, name: str, shapes: Mapping[str, tuple[int, ...]]) -> NDArray[np.float32]:
    shape = shapes[name.partition("/")[2]]
    entry = payload.entries.get(name)
    if entry is None or entry.shape != shape:
        raise VisitFailed(
            RefusalCode.SETTINGS,
            f"kept optimizer moments: expected {name} of shape {shape}, found "
            f"{'none' if entry is None else entry.shape}. The run's model has changed: start a run of another name.",
        )
    return payload[name].copy()


def _as_numbers(position: Position, told: Mapping[str, float]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, value in (asdict(position) | {"told": told}).items():
        if isinstance(value, dict):
            numbers |= {f"{name}/{key}": float(inner) for key, inner in value.items()}
        else:
            numbers[name] = float(value)
    return numbers


def _from_numbers(numbers: Mapping[str, float]) -> Position:
    values: dict[str, Any] = {}
    for item in fields(Position):
        if item.type is int:
            values[item.name] = int(numbers[item.name])
        elif item.type is float:
            values[item.name] = numbers[item.name]
        else:
            head = f"{item.name}/"
            values[item.name] = {key.removeprefix(head): v for key, v in numbers.items() if key.startswith(head)}
    return Position(**values)
