"""Names, shapes and kinds of the tensors that a task exchanges: all that the coordinator knows of a model."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from mammofed_shared.config.base import Settings

CONTROL = "control/"
"""What the names of control variates begin with."""


class TensorSpec(Settings):
    """One exchanged tensor.

    A ``parameter`` is trained; a float ``buffer`` (batch-norm statistics) is averaged but never touched by a server
    optimizer; a ``counter`` is an integer of which the largest is kept; a ``control`` is SCAFFOLD's control variate of
    the parameter whose name follows ``CONTROL``: in a state its value, in an update how the site's own has changed.
    """

    shape: tuple[int, ...]
    dtype: Literal["F32", "F64", "I64", "I32"]
    kind: Literal["parameter", "buffer", "counter", "control"]


class TaskSpec(Settings):
    """Everything a task exchanges, by tensor name, and the metric by which updates are weighed."""

    task: str
    weight_key: str
    tensors: Mapping[str, TensorSpec] = Field(min_length=1)

    @property
    def num_values(self) -> int:
        """Number of exchanged values over all tensors."""
        total = 0
        for tensor in self.tensors.values():
            count = 1
            for size in tensor.shape:
                count *= size
            total += count
        return total
