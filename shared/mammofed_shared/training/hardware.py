"""What one visit may use of a site's machine: plain values, from the site's YAML."""

from dataclasses import dataclass
from typing import Literal

Distribution = Literal["none", "ddp", "zero-1", "zero-2", "zero-3"]
"""How the processes of a worker group share the work: ``none`` is one process; ``ddp`` copies the model into each;
``zero-1`` to ``zero-3`` (DeepSpeed) divide the optimizer's moments, the gradients too, and the weights too."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """A worker group's machine, and this process's place in the group.

    ``micro_batch`` is the largest number of samples that one process computes at once; None: its whole share.
    ``threads`` of the CPU are each process's.
    """

    device: Literal["auto", "cpu", "cuda"] = "cpu"
    distribution: Distribution = "none"
    num_processes: int = 1
    rank: int = 0
    rendezvous: str = ""
    """Path of a file that does not exist yet, in which the processes of the group find each other."""
    threads: int = 2
    micro_batch: int | None = None
    compile: bool = False
