"""Control variates of 0 beside a run's first state, where the run's strategy is SCAFFOLD."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from mammofed_server.aggregation import BLOCK_VALUES, names_in_order, payload_header
from mammofed_shared.protocol.payload import Payload, PayloadWriter
from mammofed_shared.protocol.plan import PayloadReference
from mammofed_shared.protocol.task_spec import CONTROL, TaskSpec


def with_controls(spec: TaskSpec) -> TaskSpec:
    """The same exchange, with a control variate of each parameter."""
    controls = {
        CONTROL + name: tensor.model_copy(update={"kind": "control"})
        for name, tensor in spec.tensors.items()
        if tensor.kind == "parameter"
    }
    return spec.model_copy(update={"tensors": {**spec.tensors, **controls}})


def add_controls(state: Path, spec: TaskSpec, target: Path) -> PayloadReference:
    """Write the tensors of a state, and after them control variates of 0.

    Args:
        spec: of the state, without control variates.
    """
    with ExitStack() as stack:
        came = stack.enter_context(Payload(state))
        names = names_in_order(came)
        header = payload_header(came, names)
        offset = came.entries[names[-1]].end
        parameters = [name for name in names if spec.tensors[name].kind == "parameter"]
        for name in parameters:
            entry = came.entries[name]
            end = offset + entry.end - entry.start
            header[CONTROL + name] = {
                "dtype": entry.dtype,
                "shape": list(entry.shape),
                "data_offsets": [offset, end],
            }
            offset = end
        writer = stack.enter_context(PayloadWriter(target, header))
        for name in names:
            for block in came.blocks(name, BLOCK_VALUES):
                writer.write(block)
        for name in parameters:
            for block in came.blocks(name, BLOCK_VALUES):
                writer.write(np.zeros_like(block))
    return writer.reference
