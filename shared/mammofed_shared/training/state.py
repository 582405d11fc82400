"""A model's exchanged tensors as a payload file, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.protocol.task_spec import CONTROL, TensorSpec

_DTYPES: Mapping[torch.dtype, Literal["F32", "F64", "I64", "I32"]] = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
}


def exchanged_arrays(model: nn.Module) -> dict[str, NDArray[Any]]:
    """Everything that travels, as numpy arrays: parameters and persistent buffers by their names in the model."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}


def tensor_specs(model: nn.Module) -> dict[str, TensorSpec]:
    """Shape, dtype and kind of everything that travels."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}

    def kind(name: str, tensor: Tensor) -> Literal["parameter", "buffer", "counter"]:
        if name in parameters:
            return "parameter"
        return "buffer" if tensor.is_floating_point() else "counter"

    return {
        name: TensorSpec(shape=tuple(tensor.shape), dtype=_DTYPES[tensor.dtype], kind=kind(name, tensor))
        for name, tensor in model.state_dict().items()
    }


def load_state(model: nn.Module, path: Path, *, has_controls: bool = False) -> None:
    """Copy a payload's tensors into a model, one after the other.

    Args:
        has_controls: whether the payload brings a control variate of each parameter, which is no part of the model.

    Raises:
        VisitFailed: TENSOR_NAMES or TENSOR_SHAPE, when they are not the model's.
    """
    own = model.state_dict()
    with Payload(path) as payload:
        parameters = model.named_parameters(remove_duplicate=False) if has_controls else ()
        expected = set(own) | {CONTROL + name for name, _ in parameters}
        missing, foreign = sorted(expected - set(payload.entries)), sorted(set(payload.entries) - expected)
        if missing or foreign:
            raise VisitFailed(
                RefusalCode.TENSOR_NAMES,
                f"state: {len(missing)} tensors of this site's model are missing ({_first(missing)}), {len(foreign)} "
                f"are unknown ({_first(foreign)}): run the same version of mammofed as the coordinator",
            )
        for name, tensor in own.items():
            array = payload[name]
            if tuple(array.shape) != tuple(tensor.shape):
                raise VisitFailed(
                    RefusalCode.TENSOR_SHAPE,
                    f"state: {name}: expected shape {tuple(tensor.shape)}, found {tuple(array.shape)}",
                )
            tensor.copy_(torch.from_numpy(np.array(array)))


def load_arrays(model: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Copy a site's own arrays into the model that they are of.

    Raises:
        VisitFailed: SETTINGS, when they are another model's.
    """
    own = model.state_dict()
    if {name: tuple(tensor.shape) for name, tensor in own.items()} != {name: a.shape for name, a in arrays.items()}:
        raise VisitFailed(RefusalCode.SETTINGS, "the checkpoint of a visit that was cut is of another model: remove it")
    for name, tensor in own.items():
        tensor.copy_(torch.from_numpy(arrays[name]))


def _first(names: list[str]) -> str:
    return names[0] if names else "none"
